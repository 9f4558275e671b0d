// The sanitizer that this translation unit is compiled with: gcc and clang say it in different ways.
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ATTN_ADDRESS_SANITIZER
#elif __has_feature(thread_sanitizer)
#define ATTN_THREAD_SANITIZER
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ATTN_ADDRESS_SANITIZER
#elif defined(__SANITIZE_THREAD__)
#define ATTN_THREAD_SANITIZER
#endif

#if defined(ATTN_ADDRESS_SANITIZER) || defined(ATTN_THREAD_SANITIZER)
#define ATTN_ANY_SANITIZER
#endif

// As a suffix of the build tag.
#if defined(ATTN_ADDRESS_SANITIZER)
#define ATTN_SANITIZER "-asan"
#elif defined(ATTN_THREAD_SANITIZER)
#define ATTN_SANITIZER "-tsan"
#else
#define ATTN_SANITIZER ""
#endif

// Definitions of malloc, mmap and pthread_create in the executable stand before those of the C library for every shared
// library of the process, plugins too. They count and pass on.
#include "attn/prove/call_meter.hpp"

#include "attn/core/sanitizer.hpp"

#if defined(__GLIBC__) && !defined(ATTN_ANY_SANITIZER)

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" {
// NOLINTBEGIN(clang-diagnostic-reserved-identifier, readability-identifier-naming): glibc's own names
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
// NOLINTEND(clang-diagnostic-reserved-identifier, readability-identifier-naming)
}

namespace {

constexpr int depth = 12;               // frames that tell who called
constexpr std::size_t remembered = 64;  // calls whose caller is kept

struct Call {
  std::array<void*, depth> frames{};
  int count = 0;
};

struct Tally {
  std::atomic<std::size_t> count{0};
  std::array<Call, remembered> calls;
};

std::atomic<bool> counting{false};
Tally allocations, threads;
thread_local bool inside = false;  // backtrace and the reader may allocate themselves

void note(Tally& tally) {
  if (!counting.load(std::memory_order_relaxed) || inside) return;
  inside = true;
  const std::size_t at = tally.count.fetch_add(1);
  if (at < remembered) tally.calls[at].count = ::backtrace(tally.calls[at].frames.data(), depth);
  inside = false;
}

std::string_view file_name(const char* path) {
  const std::string_view text = path == nullptr ? "" : path;
  return text.substr(text.rfind('/') + 1);
}

// oneDNN's sgemm packs into memory of its own, directly or through the OpenMP runtime.
bool inside_onednn(const Call& call) {
  return std::any_of(call.frames.begin(), call.frames.begin() + call.count, [](void* frame) {
    Dl_info info{};
    return ::dladdr(frame, &info) != 0 && file_name(info.dli_fname).rfind("libdnnl", 0) == 0;
  });
}

// Library and function of the innermost frame that is neither this file nor the C++ runtime.
std::string caller(const Call& call) {
  Dl_info self{};
  ::dladdr(reinterpret_cast<void*>(&attn::program_call_meter), &self);
  for (int frame = 0; frame < call.count; ++frame) {
    Dl_info info{};
    if (::dladdr(call.frames[static_cast<std::size_t>(frame)], &info) == 0) continue;
    const std::string_view library = file_name(info.dli_fname);
    if (info.dli_fbase == self.dli_fbase || library.rfind("libstdc++", 0) == 0) continue;
    std::string text(library);
    if (info.dli_sname == nullptr) return text;
    int status = 0;
    char* readable = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    text += std::string(" ") + (status == 0 ? readable : info.dli_sname);
    std::free(readable);
    return text;
  }
  return "the program itself";
}

// Calls made by anybody but TBB, oneDNN and the dynamic linker, and who made the first. Calls beyond the remembered ones count.
attn::index_t read(const Tally& tally, std::string& first) {
  const std::size_t count = tally.count.load();
  attn::index_t ours = 0;
  for (std::size_t i = 0; i < std::min(count, remembered); ++i) {
    const std::string by = caller(tally.calls[i]);
    if (by.rfind("libtbb", 0) == 0 || by.rfind("ld-linux", 0) == 0 || inside_onednn(tally.calls[i])) continue;
    if (ours++ == 0) first = by;
  }
  return ours + (ours > 0 && count > remembered ? static_cast<attn::index_t>(count - remembered) : 0);
}

class Meter final : public attn::CallMeter {
 public:
  Meter() {
    std::array<void*, depth> frames{};
    ::backtrace(frames.data(), depth);  // its first call loads a library
  }
  void start() override {
    allocations.count = 0;
    threads.count = 0;
    counting = true;
  }
  attn::OutsideCalls stop() override {
    counting = false;
    attn::OutsideCalls calls;
    calls.allocations = read(allocations, calls.first_allocation_by);
    calls.threads = read(threads, calls.first_thread_by);
    return calls;
  }
};

}  // namespace

extern "C" {

void* malloc(std::size_t bytes) {
  note(allocations);
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  note(allocations);
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, std::size_t bytes) {
  note(allocations);
  return __libc_realloc(memory, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  note(allocations);
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  note(allocations);
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) {
  note(allocations);
  const int before = errno;
  void* granted = __libc_memalign(alignment, bytes);
  errno = before;
  if (granted == nullptr) return ENOMEM;
  *memory = granted;
  return 0;
}
void* mmap(void* address, std::size_t bytes, int protection, int flags, int fd, off_t offset) {
  note(allocations);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the system call says the address as a number
  return reinterpret_cast<void*>(::syscall(SYS_mmap, address, bytes, protection, flags, fd, offset));
}
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto next = reinterpret_cast<Create>(::dlsym(RTLD_NEXT, "pthread_create"));
  note(threads);
  return next(thread, attributes, start, argument);
}

}  // extern "C"

attn::CallMeter* attn::program_call_meter() {
  static Meter meter;
  return &meter;
}

#else

attn::CallMeter* attn::program_call_meter() { return nullptr; }

#endif

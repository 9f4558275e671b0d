#define ATTN_INSTRUCTIONS avx2
#include "attn/algebra/product-inl.hpp"

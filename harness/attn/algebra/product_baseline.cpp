#define ATTN_INSTRUCTIONS baseline
#include "attn/algebra/product-inl.hpp"

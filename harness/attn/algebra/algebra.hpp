// The algebra that definitions are written in.
#pragma once

#include "attn/algebra/elementwise.hpp"
#include "attn/algebra/functions.hpp"
#include "attn/algebra/gather.hpp"
#include "attn/algebra/gradient.hpp"
#include "attn/algebra/layout.hpp"
#include "attn/algebra/linalg.hpp"
#include "attn/algebra/matmul.hpp"
#include "attn/algebra/reduce.hpp"
#include "attn/algebra/rounded_products.hpp"
#include "attn/algebra/tensor.hpp"

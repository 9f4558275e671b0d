#include "attn/apply/apply.hpp"

int main(int argc, char** argv) { return attn::apply_main(argc, argv); }

#include "attn/sweep/sweep.hpp"

int main(int argc, char** argv) { return attn::sweep_main(argc, argv); }

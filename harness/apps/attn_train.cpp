#include "attn/train/program.hpp"

int main(int argc, char** argv) { return attn::train_main(argc, argv); }

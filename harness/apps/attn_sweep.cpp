#include "attn/sweep/sweep.hpp"
#include "call_meter.hpp"

int main(int argc, char** argv) { return attn::sweep_main(argc, argv, program_call_meter()); }

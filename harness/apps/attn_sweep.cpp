#include "attn/prove/call_meter.hpp"
#include "attn/sweep/sweep.hpp"

int main(int argc, char** argv) { return attn::sweep_main(argc, argv, attn::program_call_meter()); }

// The program's call meter; null where the build leaves no room for one (sanitizers, C libraries other than glibc).
#pragma once

#include "attn/measure/call_meter.hpp"

attn::CallMeter* program_call_meter();

// Rows as a table that a person reads, and as Markdown.
#pragma once

#include <string>
#include <vector>

#include "attn/record/row.hpp"

namespace attn {

enum class TableStyle { terminal, markdown };

// One block for each problem: time, time relative to `baseline` (an id), fraction of the roof, memory, accuracy. Refused
// cells stand with their reason.
std::string table(const std::vector<Row>& rows, const std::string& baseline, TableStyle style);

std::string human_time(double seconds);
std::string human_bytes(double bytes);

}  // namespace attn

// Rows as a table that a person reads, and as Markdown.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "attn/record/row.hpp"

namespace attn {

enum class TableStyle { terminal, markdown };

// One block for each problem: time, time relative to `baseline` (an id), fraction of the roof, memory, accuracy. Refused
// cells stand with their reason. A table for a terminal of so many `columns` (0: any) leaves out columns, the last one first, and
// breaks no line.
std::string table(const std::vector<Row>& rows, const std::string& baseline, TableStyle style, std::size_t columns = 0);

std::string human_time(double seconds);
std::string human_bytes(double bytes);

}  // namespace attn

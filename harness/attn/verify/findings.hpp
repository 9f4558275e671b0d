// What --verify says of what it found.
#pragma once

#include <string>
#include <vector>

#include "attn/prove/conformance.hpp"
#include "attn/verify/verify.hpp"

namespace attn {

// One variant's, in the order of the properties tried.
struct VariantFindings {
  std::string variant, name, family;  // name: as people read it
  std::vector<Finding> findings;
};

bool any_failed(const std::vector<VariantFindings>& found);

std::string findings_text(const std::vector<Property>& tried, const std::vector<VariantFindings>& found,
                          const VerifyOptions& options);
std::string findings_markdown(const std::vector<Property>& tried, const std::vector<VariantFindings>& found);
std::string findings_json(const std::vector<Property>& tried, const std::vector<VariantFindings>& found,
                          const VerifyOptions& options);

// A finding between processes.
std::string to_json(const Finding& finding);
Finding finding_from_json(const std::string& text);  // throws std::exception when it is torn

}  // namespace attn

// Where the list of what this program is linked to lies: attnbench.cdx.json (CycloneDX), made when it was configured.
#pragma once

#include <string>

namespace attn {

// Installed beside the reports, or in the folder that it was built in; "not found" where neither is there any more.
std::string component_list();

// What --version prints: build, commit, oneDNN, and where that list lies.
std::string program_version();

}  // namespace attn

// The processes of one guest, and the plans that they carry out.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "attn/guest/conversation.hpp"
#include "attn/guest/spec.hpp"
#include "attn/variant/registry.hpp"
#include "attn/variant/remote.hpp"

namespace attn {

// Where guests of this process run from here on: `threads` processors, of distinct cores first, when `pin`.
void place_guests(int threads, bool pin);

// A process is started when all others are in use, and kept for the next plan: Python takes a tenth of a second to start, PyTorch one.
class GuestHost {
 public:
  explicit GuestHost(GuestSpec spec) : spec_(std::move(spec)) {}
  const GuestSpec& spec() const { return spec_; }

  // As many threads as guests are placed on, unless a number is given.
  std::unique_ptr<Conversation> take(int threads = 0);
  void give_back(std::unique_ptr<Conversation> conversation);

  // The guest's refusal to plan this, if it refuses.
  Status supports(const VariantName& name, const Problem& p);
  // What it said at its last plan.
  std::string note() const { return note_; }
  void noted(const std::string& note) { note_ = note; }

 private:
  GuestSpec spec_;
  std::vector<std::unique_ptr<Conversation>> idle_;
  std::string note_;
};

// Of a row: bf16_dot where it is handed bf16, whose peak is then its roof, whatever it does with them.
kernels::Compute compute_of_guest(const Problem& p);

// Of the variant of this name, on so many threads.
std::unique_ptr<Plan> plan_of_guest(const std::shared_ptr<GuestHost>& host, const VariantName& name, const Problem& p, int threads);

// The guest's variants: implementations of those that the registry has, and its own. Refused where one is there already; what is
// refused adds nothing.
Status register_guest(const GuestSpec& spec, Registry& registry);
// Specs as a worker is handed them; then those that come with attnbench, but for a name that one of `given` has.
Status register_guests(const std::vector<std::string>& given, Registry& registry);

}  // namespace attn

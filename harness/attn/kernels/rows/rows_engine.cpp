#include "attn/kernels/rows/rows_engine.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <new>

#include "attn/core/assert.hpp"
#include "attn/exec/seating.hpp"
#include "attn/kernels/machine/flush_denormals.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/machine/widen.hpp"
#include "attn/kernels/rows/group_kernel.hpp"

namespace attn::kernels {

namespace {

// Keys of a part.
constexpr index_t part_keys = 512;

// Rows up to which the lanes lie along head_dim.
constexpr index_t few_rows_limit = 16;

// Tasks for each thread where items are split.
constexpr index_t tasks_per_thread = 8;

constexpr index_t round_up(index_t n, index_t step) { return (n + step - 1) / step * step; }
constexpr index_t ceil_div(index_t n, index_t d) { return (n + d - 1) / d; }

template <class T>
std::span<T> objects(std::span<std::byte> memory) {
  return {reinterpret_cast<T*>(memory.data()), memory.size() / sizeof(T)};
}

}  // namespace

// One row block of a list of keys of a sequence.
struct RowsEngine::Item {
  index_t batch, head;  // the first head of the list
  GroupRows rows;
  index_t first_span, spans;
  index_t keys;
  index_t parts;
  index_t first_task_parts;  // these are in the item's first state
  std::int32_t tasks_left;
};

// Parts [begin, end) of an item.
struct RowsEngine::Task {
  index_t item, begin, end;
};

bool RowsEngine::takes_scores(const Problem& p, const RowsOptions& options) {
  return (options.heads_apart ? 1 : p.heads / p.kv_heads) * (options.apart ? 1 : p.q_len) <= few_rows_limit;
}

RowsEngine::RowsEngine(const Problem& problem, const RowsOptions& options, WorkspacePlan& plan)
    : problem_(problem),
      scale_(options.scale.value_or(problem.scale())),
      latent_(options.latent),
      group_(options.heads_apart ? 1 : problem.heads / problem.kv_heads),
      queries_(options.apart ? 1 : problem.q_len),
      lists_(problem.heads / group_ * (problem.q_len / queries_)),
      span_room_(options.spans) {
  ATTN_ASSERT(problem.head_dim >= 1 && problem.head_dim <= widest_head);
  ATTN_ASSERT(problem.value_dim >= 1 && problem.value_dim <= widest_head);
  ATTN_ASSERT(problem.heads % problem.kv_heads == 0);
  const index_t rows = group_ * queries_;
  if (rows <= few_rows_limit || options.latent > 0) {
    row_blocks_ = ceil_div(rows, few_rows_limit);
    block_rows_ = ceil_div(rows, row_blocks_);
    kernel_ = few_rows({block_rows_, problem.head_dim, problem.value_dim, problem.kv_dtype, options.latent, options.softcap});
  } else {
    ATTN_ASSERT(options.softcap == 0);
    block_rows_ = std::min(rows, round_up(ceil_div(rows, ceil_div(rows, most_lane_rows())), vector_lanes()));
    row_blocks_ = ceil_div(rows, block_rows_);
    kernel_ = lane_rows({block_rows_, problem.head_dim, problem.value_dim, problem.kv_dtype});
  }
  items_ = problem.batch * lists_ * row_blocks_;
  most_parts_ = ceil_div(std::min(options.keys, problem.kv_len), part_keys);
  // Many items keep all threads busy by themselves, the longest first.
  splits_ = plan.threads() > 1 && items_ < 16 * plan.threads() && most_parts_ > 1;
  most_tasks_ = items_ + (splits_ ? tasks_per_thread * plan.threads() : 0);

  const auto bytes = [](index_t count, std::size_t size) { return count * static_cast<index_t>(size); };
  item_memory_ = plan.shared<std::byte>(bytes(items_, sizeof(Item)));
  task_memory_ = plan.shared<std::byte>(bytes(most_tasks_, sizeof(Task)));
  spans_ = plan.shared<std::byte>(bytes(problem.batch * lists_ * span_room_, sizeof(KeyRun)));
  if (splits_) parts_ = plan.shared<float>(items_ * most_parts_ * kernel_->state_floats());
  worker_memory_ = plan.per_worker<std::byte>(bytes(3, sizeof(KeyBlock)));
  scratch_ = plan.per_worker<float>(kernel_->query_floats() + 2 * kernel_->state_floats() + kernel_->scratch_floats());
  if (problem.dtype != DType::f32) widened_ = plan.per_worker<float>(block_rows_ * query_dim());
}

class RowsEngine::Run {
 public:
  Run(const RowsEngine& engine, const RowsArrays& arrays, std::span<const index_t> lengths, const Workspace& workspace)
      : e_(engine),
        kernel_(*engine.kernel_),
        arrays_(arrays),
        lengths_(lengths),
        workspace_(workspace),
        items_(objects<Item>(workspace.shared(engine.item_memory_))),
        tasks_(objects<Task>(workspace.shared(engine.task_memory_))),
        spans_(objects<KeyRun>(workspace.shared(engine.spans_))) {}

  void operator()(const Schedule* schedule) {
    index_t item = 0, total_parts = 0;
    for (index_t list = 0; list < e_.problem_.batch * e_.lists_; ++list) {
      const Item& first = list_keys(item, list, schedule);
      for (index_t block = 0; block < e_.row_blocks_; ++block) {
        Item& own = *new (&items_[static_cast<std::size_t>(item++)]) Item(first);
        own.rows.first = block * e_.block_rows_;
        own.rows.count = std::min(e_.block_rows_, e_.group_ * e_.queries_ - own.rows.first);
        total_parts += own.parts;
      }
    }
    const index_t tasks = cut_tasks(total_parts);
    parallel_tasks(tasks, [&](index_t task, int worker) { attend(tasks_[static_cast<std::size_t>(task)], worker); });
  }

 private:
  // The item of the list's first rows, with its spans. Lists of the queries of some heads follow each other.
  const Item& list_keys(index_t item, index_t list, const Schedule* schedule) {
    const Problem& p = e_.problem_;
    const index_t steps = p.q_len / e_.queries_;
    Item& own = *new (&items_[static_cast<std::size_t>(item)]) Item{};
    own.batch = list / e_.lists_;
    own.head = list % e_.lists_ / steps * e_.group_;
    const index_t length = lengths_.empty() ? p.kv_len : lengths_[static_cast<std::size_t>(own.batch)];
    ATTN_ASSERT(length >= 0 && length <= p.kv_len);
    own.rows = {.queries = e_.queries_, .first_query = list % steps, .shift = length - p.q_len, .causal = p.causal};
    if (const View<const double, 3>& potential = arrays_.potential; potential.data_handle() != nullptr) {
      const index_t extra = potential.extent(2) - p.kv_len;
      own.rows.potential = &potential(own.batch, own.head, extra);
      own.rows.head_stride = potential.stride(1);
      own.rows.first_potential = -extra;
    }
    own.first_span = list * e_.span_room_;
    const std::span<KeyRun> room =
        spans_.subspan(static_cast<std::size_t>(own.first_span), static_cast<std::size_t>(e_.span_room_));
    if (schedule != nullptr) {
      KeyList keys(length);
      (*schedule)({.batch = own.batch,
                   .head = own.head,
                   .kv_head = p.kv_head(own.head),
                   .count = e_.queries_,
                   .first = own.rows.first_query,
                   .shift = own.rows.shift},
                  keys);
      own.spans = list_spans(keys, own.rows, room);
    } else if (length > 0) {
      room[0] = {.count = length};
      own.spans = 1;
    }
    own.keys = count_keys(spans_of(own));
    own.parts = ceil_div(own.keys, part_keys);
    ATTN_ASSERT(own.parts <= e_.most_parts_);
    return own;
  }

  std::span<const KeyRun> spans_of(const Item& item) const {
    return spans_.subspan(static_cast<std::size_t>(item.first_span), static_cast<std::size_t>(item.spans));
  }

  // Tasks of whole parts, the longest first. How many there are moves work, not sums.
  index_t cut_tasks(index_t total_parts) {
    const index_t threads = arena_threads();
    const index_t grain = e_.splits_ ? std::max<index_t>(1, ceil_div(total_parts, tasks_per_thread * threads)) : e_.most_parts_;
    index_t tasks = 0;
    for (index_t i = 0; i < e_.items_; ++i) {
      Item& item = items_[static_cast<std::size_t>(i)];
      item.first_task_parts = std::min(grain, item.parts);
      for (index_t begin = 0; begin == 0 || begin < item.parts; begin += std::max<index_t>(1, grain)) {
        new (&tasks_[static_cast<std::size_t>(tasks++)]) Task{i, begin, std::min(begin + grain, item.parts)};
        ++item.tasks_left;
      }
    }
    if (threads > 1) {
      const auto keys = [&](const Task& t) {
        return std::min(t.end * part_keys, items_[static_cast<std::size_t>(t.item)].keys) - t.begin * part_keys;
      };
      for_each_share(tasks, [&](index_t first, index_t last) {
        std::sort(tasks_.begin() + first, tasks_.begin() + last, [&](const Task& a, const Task& b) {
          const index_t of_a = keys(a), of_b = keys(b);
          return of_a != of_b ? of_a > of_b : a.item != b.item ? a.item < b.item : a.begin < b.begin;
        });
      });
    }
    return tasks;
  }

  KeyRows rows_of(const Item& item) const {
    const index_t kv_head = e_.problem_.kv_head(item.head);
    const StoredRows k = rows_of_head(arrays_.k, item.batch, kv_head), v = rows_of_head(arrays_.v, item.batch, kv_head);
    KeyRows rows{.k = k.data, .v = v.data, .k_stride = k.stride, .v_stride = v.stride, .layout = arrays_.layout};
    rows.layout.k_page_stride = bytes_of(e_.problem_.kv_dtype, rows.layout.k_page_stride);
    rows.layout.v_page_stride = bytes_of(e_.problem_.kv_dtype, rows.layout.v_page_stride);
    if (rows.layout.pages != nullptr) rows.layout.pages += item.batch * rows.layout.pages_stride;
    return rows;
  }

  float* part_state(index_t item, index_t part) const {
    return workspace_.shared(e_.parts_).data() + (item * e_.most_parts_ + part) * kernel_.state_floats();
  }

  void attend(const Task& task, int worker) {
    const DenormalsAreZero fast;
    Item& item = items_[static_cast<std::size_t>(task.item)];
    float* queries = workspace_.of(worker, e_.scratch_).data();
    float* own_state = queries + kernel_.query_floats();
    float* own_part = own_state + kernel_.state_floats();
    float* scratch = own_part + kernel_.state_floats();
    load(item, queries, worker);

    std::byte* memory = workspace_.of(worker, e_.worker_memory_).data();
    KeyBlock* now = new (memory) KeyBlock;
    KeyBlock* next = new (memory + sizeof(KeyBlock)) KeyBlock;
    KeyBlock* later = new (memory + 2 * sizeof(KeyBlock)) KeyBlock;
    KeyWalk walk(spans_of(item), rows_of(item), item.rows, task.begin * part_keys);
    const index_t end = std::min(task.end * part_keys, item.keys);
    index_t at = task.begin * part_keys;  // keys in blocks so far
    const auto advance = [&] {
      const index_t part_end = std::min(end, (at / part_keys + 1) * part_keys);
      std::swap(now, next);
      std::swap(next, later);
      walk.next(*later, std::min(kernel_.block_keys(), part_end - at));
      at += later->count;
    };

    // Parts from the first on are summed up as they come; others wait for those before them.
    const bool alone = task.begin == 0 && task.end == item.parts;
    float* total = alone ? own_state : part_state(task.item, task.begin);
    kernel_.clear(item.rows.count, total);
    advance();
    advance();
    for (index_t part = task.begin; part < task.end; ++part) {
      float* state = part == task.begin ? total : task.begin == 0 ? own_part : part_state(task.item, part);
      if (state != total) kernel_.clear(item.rows.count, state);
      for (index_t left = std::min(part_keys, item.keys - part * part_keys); left > 0;) {
        advance();
        kernel_.attend(queries, item.rows, {*now, *next, *later}, state, scratch);
        left -= now->count;
      }
      if (state == own_part) kernel_.merge(total, state);
    }
    if (!alone) {
      if (std::atomic_ref(item.tasks_left).fetch_sub(1, std::memory_order_acq_rel) > 1) return;
      total = part_state(task.item, 0);
      for (index_t part = item.first_task_parts; part < item.parts; ++part) kernel_.merge(total, part_state(task.item, part));
    }
    store(item, total, own_part);
  }

  // Row r of a list is its query r % queries of its head r / queries.
  template <class F>
  void each_row(const Item& item, const F& f) const {
    for (index_t i = 0; i < item.rows.count; ++i) {
      f(static_cast<std::size_t>(i), item.head + (item.rows.first + i) / e_.queries_, item.rows.query(i));
    }
  }

  void load(const Item& item, float* queries, int worker) const {
    std::array<const std::byte*, 64> rows;
    each_row(item,
             [&](std::size_t i, index_t head, index_t query) { rows[i] = rows_of_head(arrays_.q, item.batch, head).row(query); });
    const index_t count = item.rows.count, width = e_.query_dim();
    if (e_.problem_.dtype != DType::f32) {
      float* const floats = workspace_.of(worker, e_.widened_).data();
      widen(e_.problem_.dtype, rows.data(), count, width, floats, width);
      for (index_t i = 0; i < count; ++i)
        rows[static_cast<std::size_t>(i)] = reinterpret_cast<const std::byte*>(floats + i * width);
    }
    kernel_.load(rows.data(), count, e_.scale_, queries);
  }

  // `spare`: memory as large as a state.
  void store(const Item& item, const float* state, float* spare) const {
    std::array<float*, 64> out, lse;
    const bool with_lse = arrays_.lse.data_handle() != nullptr;
    each_row(item, [&](std::size_t i, index_t head, index_t query) {
      out[i] = &arrays_.out(item.batch, head, query, 0);
      if (with_lse) lse[i] = &arrays_.lse(item.batch, head, query);
    });
    const index_t count = item.rows.count, width = e_.out_dim();
    if (!arrays_.resume) return kernel_.store(state, out.data(), with_lse ? lse.data() : nullptr, count);
    std::array<float*, 64> own_out, own_lse;
    for (index_t i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      own_out[at] = spare + i * width;
      own_lse[at] = spare + count * width + i;
    }
    kernel_.store(state, own_out.data(), own_lse.data(), count);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) add_row(width, own_out[i], *own_lse[i], out[i], *lse[i]);
  }

  // Adds what a row found among other keys to what it had found before.
  static void add_row(index_t width, const float* own, float own_lse, float* out, float& lse) {
    const float top = std::max(lse, own_lse);
    if (top == own_lse && std::isinf(top)) return;  // nothing more
    const float before = std::exp(lse - top), now = std::exp(own_lse - top), share = 1 / (before + now);
    for (index_t c = 0; c < width; ++c) out[c] = (out[c] * before + own[c] * now) * share;
    lse = top + std::log(before + now);
  }

  const RowsEngine& e_;
  const GroupKernel& kernel_;
  const RowsArrays& arrays_;
  std::span<const index_t> lengths_;
  const Workspace& workspace_;
  std::span<Item> items_;
  std::span<Task> tasks_;
  std::span<KeyRun> spans_;
};

void RowsEngine::run(const RowsArrays& arrays, std::span<const index_t> lengths, const Workspace& workspace,
                     const Schedule* schedule) const {
  ATTN_ASSERT(holds_rows(arrays.q, problem_.dtype) && holds_rows(arrays.k, problem_.kv_dtype));
  ATTN_ASSERT(holds_rows(arrays.v, problem_.kv_dtype) && arrays.out.stride(3) == 1);
  ATTN_ASSERT(lengths.empty() || static_cast<index_t>(lengths.size()) == problem_.batch);
  ATTN_ASSERT(!arrays.resume || arrays.lse.data_handle() != nullptr);
  ATTN_ASSERT(arrays.potential.data_handle() == nullptr || (row_blocks_ == 1 && block_rows_ <= few_rows_limit));
  Run(*this, arrays, lengths, workspace)(schedule);
}

void RowsEngine::run(const RowsArrays& arrays, std::span<const index_t> lengths, const Workspace& workspace) const {
  run(arrays, lengths, workspace, nullptr);
}

void RowsEngine::run(const RowsArrays& arrays, std::span<const index_t> lengths, const Workspace& workspace,
                     Schedule schedule) const {
  run(arrays, lengths, workspace, &schedule);
}

}  // namespace attn::kernels

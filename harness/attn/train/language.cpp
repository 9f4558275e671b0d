// Which language a text is in: a label for the whole of it, and a label for every character of a text that changes its language.
#include <algorithm>
#include <map>

#include "attn/train/files.hpp"
#include "attn/train/pairs.hpp"

namespace attn {

namespace {

// Texts with labels, in two parts that share no message: the translations of one stand in the same part, whatever their language.
struct Labelled {
  struct Text {
    std::vector<index_t> symbols;
    index_t label;
  };
  std::vector<Text> known, held;
  index_t symbols = 0, labels = 0;
};

struct Raw {
  std::string text, message, label;
};

// Of several files the translations, labelled by their file; of one the first fields, labelled by the second.
Result<std::vector<Raw>> read_raw(const std::vector<std::string>& paths) {
  std::vector<Raw> raw;
  for (const std::string& path : paths) {
    auto pairs = read_pairs(path);
    if (!pairs) return pairs.refusal();
    for (TextPair& pair : *pairs)
      raw.push_back(paths.size() == 1 ? Raw{pair.from, pair.from, pair.to} : Raw{pair.to, pair.from, path});
  }
  // What stands under two labels tells neither; what stands twice under one is told once.
  std::map<std::string, std::string> label_of;
  std::map<std::string, bool> clear;
  for (const Raw& r : raw) {
    const auto [first, inserted] = label_of.emplace(r.text, r.label);
    clear[r.text] = inserted || (clear[r.text] && first->second == r.label);
  }
  std::erase_if(raw, [&](const Raw& r) { return !clear[r.text] || label_of.erase(r.text) == 0; });
  return raw;
}

Result<Labelled> read_labelled(const std::vector<std::string>& paths) {
  auto raw = read_raw(paths);
  if (!raw) return raw.refusal();
  std::map<std::string, index_t> labels;
  std::vector<std::string> messages;
  Alphabet alphabet;
  for (const Raw& r : *raw) {
    labels.emplace(r.label, 0);
    messages.push_back(r.message);
    alphabet.add(*code_points(r.text));
  }
  if (labels.size() < 2)
    return refuse("has " + counted(labels.size(), "label") + " in " + join(paths, ", ") +
                  ", and there must be two or more; accepted: several files, "
                  "whose translations are told apart, or one of texts with their labels behind a tab");
  index_t number = 0;
  for (auto& [label, index] : labels) index = number++;
  std::ranges::sort(messages);
  messages.erase(std::unique(messages.begin(), messages.end()), messages.end());
  const auto hidden = held_out(messages);
  Labelled all;
  for (const Raw& r : *raw) {
    Labelled::Text text{{}, labels[r.label]};
    const std::u32string characters = *code_points(r.text);
    for (const char32_t c : characters) text.symbols.push_back(alphabet.symbol(c));
    const auto at = std::ranges::lower_bound(messages, r.message) - messages.begin();
    (hidden[static_cast<std::size_t>(at)] ? all.held : all.known).push_back(std::move(text));
  }
  if (all.held.empty() || all.known.empty())
    return refuse("has " + counted(raw->size(), "text") +
                  " that one label has alone, and one to learn from and one to be tested with are needed");
  all.symbols = alphabet.symbols();
  all.labels = static_cast<index_t>(labels.size());
  return all;
}

const Labelled::Text& any_of(const std::vector<Labelled::Text>& texts, Draws& draws) {
  return texts[static_cast<std::size_t>(draws.below(static_cast<index_t>(texts.size())))];
}

struct OfFiles : Task {
  struct Options {};
  static OptionTable<Options> options() { return {}; }
  static inline const OptionDoc files{"FILE", "path", "FILE.mo,FILE.mo,... or FILE.tsv", "",
                                      "a catalogue for each language, or one file of texts and their labels; UTF-8"};
  Labelled texts;

  explicit OfFiles(Labelled given) : texts(std::move(given)) {
    symbols = texts.symbols;
    classes = texts.labels;
    recipe = {.layer = {.width = 64, .heads = 2}, .layers = 2, .steps = 1500, .rate = 2e-3};
  }
};

// Texts longer than N are cut.
struct Language final : OfFiles {
  explicit Language(Labelled given) : OfFiles(std::move(given)) {
    test_size = static_cast<index_t>(texts.held.size());
    control_bar = 0.7;
  }
  static Result<std::unique_ptr<Language>> make(index_t, const std::vector<std::string>& paths, const Options&) {
    auto texts = read_labelled(paths);
    if (!texts) return texts.refusal();
    return std::make_unique<Language>(*std::move(texts));
  }

  Sample sample(Draws& draws, double) const override { return of(any_of(texts.known, draws)); }
  Sample test_sample(Draws&, index_t index, double) const override { return of(texts.held[static_cast<std::size_t>(index)]); }

 private:
  Sample of(const Labelled::Text& text) const {
    Sample s{text.symbols, {}, {text.label}};
    s.symbols.resize(static_cast<std::size_t>(length), 0);
    return s;
  }
};

// Texts of languages drawn at random, one behind the other with a blank between them, until N characters are full.
struct Switching final : OfFiles {
  explicit Switching(Labelled given) : OfFiles(std::move(given)) {
    pool = Pool::chosen;
    control_bar = 0.7;
  }
  static Result<std::unique_ptr<Switching>> make(index_t, const std::vector<std::string>& paths, const Options&) {
    auto texts = read_labelled(paths);
    if (!texts) return texts.refusal();
    return std::make_unique<Switching>(*std::move(texts));
  }

  Sample sample(Draws& draws, double) const override { return of(texts.known, draws); }
  Sample test_sample(Draws& draws, index_t, double) const override { return of(texts.held, draws); }

 private:
  Sample of(const std::vector<Labelled::Text>& from, Draws& draws) const {
    Sample s;
    const auto full = [&] { return static_cast<index_t>(s.symbols.size()) >= length; };
    while (!full()) {
      const Labelled::Text& text = any_of(from, draws);
      s.symbols.insert(s.symbols.end(), text.symbols.begin(), text.symbols.end());
      s.symbols.push_back(0);
      s.targets.resize(s.symbols.size(), text.label);
    }
    s.symbols.resize(static_cast<std::size_t>(length));
    s.targets.resize(static_cast<std::size_t>(length));
    for (index_t i = 0; i < length; ++i) s.at.push_back(i);
    return s;
  }
};

}  // namespace

TaskType language_task() {
  return file_task_type<Language>("language",
                                  "which language a text is in: a label for the whole, tested on messages that are held out");
}
TaskType switching_task() {
  return file_task_type<Switching>("switching",
                                   "texts of several languages in a row: the language of every character, on held-out messages");
}

}  // namespace attn

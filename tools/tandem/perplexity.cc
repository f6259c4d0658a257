// tandem perplexity: how well a model foretells a text, teacher-forced, in llama-perplexity's
// terms.
//
// A text is cut into chunks of -c tokens, each read from an empty context; the second half of a
// chunk is scored, so that every scored token has at least half a chunk before it. With --ids the
// tokens are given, one sequence a line, and all but the first of each are scored.
//   nll = -ln p(token | those before it), perplexity = exp(mean nll),
//   stderr = sqrt(variance / n) of the mean, and perplexity times that for the perplexity.
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <memory>
#include <sstream>

#include "engine/base/error.h"
#include "engine/model/tokenizer.h"
#include "engine/run/engine.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/engine_flags.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"

namespace tandem {
namespace {

constexpr uint32_t kDefaultChunk = 512;
constexpr uint32_t kShortestChunk = 4;

struct PerplexityFlags {
  EngineFlags engine;
  std::string text_file;
  std::string ids_file;
  std::string logits_file;
  uint32_t chunks = 0;
  bool json = false;
};

// Tokens read from an empty context; those from `first_scored` on count.
struct Sequence {
  std::vector<int32_t> tokens;
  uint32_t first_scored = 1;
};

// Mean and variance of what was added, in one pass (Welford).
class Moments {
 public:
  void Add(double x) {
    ++n_;
    const double delta = x - mean_;
    mean_ += delta / static_cast<double>(n_);
    squares_ += delta * (x - mean_);
  }
  uint64_t n() const { return n_; }
  double mean() const { return mean_; }
  double StdErr() const {
    if (n_ < 2) return 0;
    const auto n = static_cast<double>(n_);
    return std::sqrt(squares_ / (n - 1) / n);
  }

 private:
  uint64_t n_ = 0;
  double mean_ = 0, squares_ = 0;
};

// -ln softmax(row)[id], in double.
double NegativeLogLikelihood(std::span<const float> row, int32_t id) {
  const double top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float logit : row) sum += std::exp(logit - top);
  return std::log(sum) + top - row[static_cast<size_t>(id)];
}

// Scores one sequence as its logits come, a step at a time, and writes them out when asked to.
class Scorer final : public RequestListener {
 public:
  Scorer(const Sequence& sequence, uint32_t vocab, Moments& nll, std::ofstream* logits)
      : sequence_(sequence), vocab_(vocab), nll_(nll), out_(logits) {}

  void OnToken(const TokenEvent&) override {}
  void OnPromptLogits(uint32_t first, const std::vector<float>& logits) override {
    for (size_t i = 0; i * vocab_ < logits.size(); ++i) {
      const size_t next = first + i + 1;
      if (next < sequence_.first_scored || next >= sequence_.tokens.size()) continue;
      nll_.Add(NegativeLogLikelihood({&logits[i * vocab_], vocab_}, sequence_.tokens[next]));
    }
    if (out_ != nullptr) {
      out_->write(reinterpret_cast<const char*>(logits.data()),
                  static_cast<std::streamsize>(logits.size() * sizeof(float)));
    }
  }
  void OnDone(FinishReason reason, const std::string& error, const RequestStats&) override {
    if (reason == FinishReason::kError) Fail(ErrorCode::kFailure, "perplexity: " + error);
  }

 private:
  const Sequence& sequence_;
  uint32_t vocab_;
  Moments& nll_;
  std::ofstream* out_;
};

std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (!in || !(text << in.rdbuf())) {
    Fail(ErrorCode::kNotFound,
         fmt::format("perplexity: cannot read '{}', or it is empty; give a file of text", path));
  }
  return text.str();
}

std::vector<Sequence> ChunksOf(const Model& model, const PerplexityFlags& flags, uint32_t chunk) {
  if (model.tokenizer() == nullptr) {
    Fail(ErrorCode::kInvalidArgument,
         "perplexity: this model has no vocabulary; give token ids with --ids FILE");
  }
  const Tokenizer& tokenizer = *model.tokenizer();
  const std::vector<int32_t> tokens = tokenizer.Encode(ReadText(flags.text_file), {});
  const bool bos = tokenizer.adds_bos() && tokenizer.bos().has_value();
  std::vector<Sequence> sequences;
  for (size_t at = 0; at + chunk <= tokens.size(); at += chunk) {
    const auto begin = tokens.begin() + static_cast<ptrdiff_t>(at);
    Sequence sequence{.tokens = {begin, begin + chunk}, .first_scored = chunk / 2 + 1};
    // As llama-perplexity has it, BOS takes the place of the chunk's first token.
    if (bos) sequence.tokens.front() = *tokenizer.bos();
    sequences.push_back(std::move(sequence));
  }
  if (sequences.empty()) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("perplexity: '{}' has {} tokens, fewer than one chunk of {}; give a longer "
                     "text or a smaller -c",
                     flags.text_file, tokens.size(), chunk));
  }
  return sequences;
}

std::vector<Sequence> SequencesOf(const Model& model, const std::string& path) {
  std::vector<Sequence> sequences;
  std::istringstream in(ReadText(path));
  size_t line_number = 0;
  for (std::string line; std::getline(in, line);) {
    ++line_number;
    Sequence sequence;
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      int32_t id = -1;
      const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
      if (error != std::errc() || end != word.data() + word.size() || id < 0 ||
          static_cast<uint32_t>(id) >= model.config().vocab) {
        Fail(ErrorCode::kInvalidArgument,
             fmt::format("perplexity: {}:{}: got '{}', want token ids from 0 to {}", path,
                         line_number, word, model.config().vocab - 1));
      }
      sequence.tokens.push_back(id);
    }
    if (!sequence.tokens.empty()) sequences.push_back(std::move(sequence));
  }
  if (sequences.empty()) {
    Fail(ErrorCode::kInvalidArgument, fmt::format("perplexity: '{}' has no token ids", path));
  }
  return sequences;
}

void Run(Engine& engine, const std::vector<Sequence>& sequences, std::ofstream* logits,
         Moments& nll) {
  ProgressBar progress;
  for (size_t i = 0; i < sequences.size(); ++i) {
    Request request;
    request.prompt = sequences[i].tokens;
    request.max_tokens = 0;
    request.prompt_logits = true;
    engine.Submit(request, std::make_shared<Scorer>(sequences[i], engine.model().config().vocab,
                                                    nll, logits));
    while (engine.HasWork()) engine.Step();
    progress.Update(i + 1, sequences.size(),
                    fmt::format("perplexity {:.4f}", std::exp(nll.mean())));
  }
}

int Perplexity(const PerplexityFlags& flags) {
  ConsoleLog log(flags.engine.verbose);
  const std::shared_ptr<const Model> model = OpenModel(flags.engine.model);
  uint32_t chunk = flags.engine.context == 0 ? std::min(kDefaultChunk, model->config().context)
                                             : flags.engine.context;
  if (chunk < kShortestChunk) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("perplexity: -c {}: got a chunk of {} tokens, want {} or more", chunk, chunk,
                     kShortestChunk));
  }
  std::vector<Sequence> sequences =
      flags.ids_file.empty() ? ChunksOf(*model, flags, chunk) : SequencesOf(*model, flags.ids_file);
  if (flags.chunks > 0 && flags.chunks < sequences.size()) sequences.resize(flags.chunks);
  uint64_t tokens = 0;
  for (const Sequence& sequence : sequences) {
    tokens += sequence.tokens.size();
    chunk = std::max(chunk, static_cast<uint32_t>(sequence.tokens.size()));
  }
  EngineFlags engine_flags = flags.engine;
  engine_flags.context = chunk;
  const std::unique_ptr<Engine> engine =
      Engine::Create(engine_flags.MakeOptions(model, "single", chunk, 1, &log));
  std::ofstream logits;
  if (!flags.logits_file.empty()) {
    logits.open(flags.logits_file, std::ios::binary);
    logits.exceptions(std::ios::badbit);
    if (!logits) Fail(ErrorCode::kIo, "perplexity: cannot write " + flags.logits_file);
  }
  Moments nll;
  Run(*engine, sequences, flags.logits_file.empty() ? nullptr : &logits, nll);
  if (nll.n() == 0) {
    Fail(ErrorCode::kInvalidArgument, "perplexity: no sequence has two tokens, nothing to score");
  }
  const double perplexity = std::exp(nll.mean());
  const EngineInfo& info = engine->info();
  if (flags.json) {
    nlohmann::json json{{"model", flags.engine.model},
                        {"ops", info.ops_name},
                        {"activations", ToString(info.activations)},
                        {"plugin", info.planned.plan.plugin},
                        {"sequences", sequences.size()},
                        {"tokens", tokens},
                        {"vocab", model->config().vocab},
                        {"scored", nll.n()},
                        {"nll_mean", nll.mean()},
                        {"nll_stderr", nll.StdErr()},
                        {"perplexity", perplexity},
                        {"perplexity_stderr", perplexity * nll.StdErr()}};
    for (const auto& [key, word] : ToldSwitches(engine->options().gpu)) json[key] = word;
    PrintJson(json);
  } else {
    PrintLine(
        fmt::format("perplexity {:.4f} +- {:.4f} (nll {:.5f} +- {:.5f}; {} tokens scored in "
                    "{} sequences; {}, activations {})",
                    perplexity, perplexity * nll.StdErr(), nll.mean(), nll.StdErr(), nll.n(),
                    sequences.size(), info.ops_name, ToString(info.activations)));
  }
  return kExitOk;
}

}  // namespace

void AddPerplexityCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* app = root.add_subcommand("perplexity", "How well a model foretells a text");
  app->footer(
      "Examples:\n"
      "  tandem perplexity -f book.txt\n"
      "  tandem perplexity -m model.gguf -f book.txt -c 1024 --chunks 8 --activations f32 --json\n"
      "  tandem perplexity --ids ids.txt --logits-out logits.f32");
  flags->engine.AddModel(*app);
  flags->engine.AddPlan(*app);
  flags->engine.AddCompute(*app);
  CLI::Option* text = app->add_option("-f,--file", flags->text_file,
                                      "Text, read in chunks of -c tokens (512); the second half "
                                      "of each is scored");
  app->add_option("--ids", flags->ids_file,
                  "Token ids instead of text: one sequence a line, all of it scored")
      ->excludes(text);
  app->add_option("--chunks", flags->chunks, "Score the first so many chunks or sequences; 0: all")
      ->capture_default_str();
  app->add_option("--logits-out", flags->logits_file,
                  "Write every position's logits: f32, (tokens, vocab), sequences in order");
  app->add_flag("--json", flags->json, "One JSON object on stdout");
  app->callback([flags, &action] {
    if (flags->text_file.empty() && flags->ids_file.empty()) {
      throw CLI::RequiredError("-f/--file or --ids");
    }
    action = [flags] { return Perplexity(*flags); };
  });
}

}  // namespace tandem

// Runs token sequences through llama.cpp, teacher-forced, and writes every position's logits.
// tools/compare-truth compiles it against the llama.cpp that tools/peer/llama_cpp.py built;
// tandem's own build knows nothing of it.
//
//   llama-logits MODEL.gguf IDS.txt OUT.f32 THREADS
//
// IDS.txt has one sequence of token ids a line, each read from an empty context; OUT.f32 gets f32
// (tokens, vocab), sequences in order: what `tandem perplexity --ids IDS.txt --logits-out` writes.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "llama.h"

namespace {

constexpr uint32_t kStepTokens = 512;

[[noreturn]] void Die(const std::string& message) {
  std::fprintf(stderr, "llama-logits: %s\n", message.c_str());
  std::exit(1);
}

std::vector<std::vector<llama_token>> ReadSequences(const std::string& path) {
  std::ifstream in(path);
  if (!in) Die("cannot read " + path);
  std::vector<std::vector<llama_token>> sequences;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::vector<llama_token> ids;
    for (llama_token id; words >> id;) ids.push_back(id);
    if (!ids.empty()) sequences.push_back(std::move(ids));
  }
  return sequences;
}

struct Free {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
};

// Decodes tokens [begin, end) of a sequence at their positions and appends their logits to `out`.
void Step(llama_context* context, const std::vector<llama_token>& ids, size_t begin, size_t end,
          size_t vocab, std::ofstream& out) {
  llama_batch batch = llama_batch_init(static_cast<int32_t>(end - begin), 0, 1);
  for (size_t at = begin; at < end; ++at) {
    const int32_t i = batch.n_tokens++;
    batch.token[i] = ids[at];
    batch.pos[i] = static_cast<llama_pos>(at);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  const int32_t status = llama_decode(context, batch);
  if (status != 0) Die("llama_decode gave " + std::to_string(status));
  out.write(reinterpret_cast<const char*>(llama_get_logits(context)),
            static_cast<std::streamsize>((end - begin) * vocab * sizeof(float)));
  llama_batch_free(batch);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) Die("usage: llama-logits MODEL.gguf IDS.txt OUT.f32 THREADS");
  const int threads = std::atoi(argv[4]);
  const auto sequences = ReadSequences(argv[2]);
  size_t longest = 1;
  for (const auto& ids : sequences) longest = std::max(longest, ids.size());
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  llama_backend_init();
  const std::unique_ptr<llama_model, Free> model(
      llama_model_load_from_file(argv[1], llama_model_default_params()));
  if (!model) Die(std::string("cannot load ") + argv[1]);
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(longest);
  params.n_batch = params.n_ubatch = kStepTokens;
  params.n_threads = params.n_threads_batch = threads;
  const std::unique_ptr<llama_context, Free> context(llama_init_from_model(model.get(), params));
  if (!context) Die("cannot make a context");
  const auto vocab = static_cast<size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model.get())));
  std::ofstream out(argv[3], std::ios::binary);
  for (const auto& ids : sequences) {
    llama_memory_clear(llama_get_memory(context.get()), true);
    for (size_t at = 0; at < ids.size(); at += kStepTokens) {
      Step(context.get(), ids, at, std::min(ids.size(), at + kStepTokens), vocab, out);
    }
  }
  if (!out) Die(std::string("cannot write ") + argv[3]);
  return 0;
}

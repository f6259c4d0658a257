// The text form of synthetic models: "h=256,l=4,heads=8,...".
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <optional>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "engine/model/arch/architecture.h"
#include "engine/model/synthetic.h"

namespace tandem {
namespace {

const std::vector<std::string>& Keys() {
  static const std::vector<std::string> kKeys = {
      "h",      "l",    "heads", "kv",    "hd",   "ffn",   "vocab",       "ctx",    "type", "embed",
      "tied",   "seed", "eps",   "theta", "rope", "scale", "interleaved", "shared", "arch", "bias",
      "window", "yarn", "orig",  "fast",  "slow", "attn",  "llama3",      "low",    "high"};
  return kKeys;
}

[[noreturn]] void Refuse(const std::string& problem) {
  Fail(ErrorCode::kInvalidArgument, "synthetic model: " + problem);
}

// "key=value" pairs, each key known and given once.
class Pairs {
 public:
  explicit Pairs(std::string_view text) {
    while (!text.empty()) {
      const size_t comma = std::min(text.find(','), text.size());
      Add(text.substr(0, comma));
      text.remove_prefix(std::min(comma + 1, text.size()));
    }
  }

  bool Has(const std::string& key) const { return values_.contains(key); }

  template <typename T>
  T Number(const std::string& key, T otherwise) const {
    const auto it = values_.find(key);
    if (it == values_.end()) {
      return otherwise;
    }
    T value{};
    const char* end = it->second.data() + it->second.size();
    const auto [stop, error] = std::from_chars(it->second.data(), end, value);
    if (error != std::errc() || stop != end) {
      Refuse(fmt::format("{}={} (want a number in range)", key, it->second));
    }
    return value;
  }

  std::string Text(const std::string& key, const std::string& otherwise) const {
    const auto it = values_.find(key);
    return it == values_.end() ? otherwise : it->second;
  }

  // A key that means nothing without another.
  void RequireWith(const std::string& key, const std::string& other) const {
    if (Has(key) && !Has(other)) {
      Refuse(fmt::format("{} without {} (want both)", key, other));
    }
  }

  uint32_t RequiredU32(const std::string& key) const {
    if (!Has(key)) {
      Refuse(fmt::format("'{}' is missing (want h=..., l=... and heads=... at least)", key));
    }
    return Number<uint32_t>(key, 0);
  }

  bool Flag(const std::string& key, bool otherwise) const {
    const auto value = Number<uint32_t>(key, otherwise ? 1 : 0);
    if (value > 1) {
      Refuse(fmt::format("{}={} (want 0 or 1)", key, value));
    }
    return value == 1;
  }

  DType Type(const std::string& key, DType otherwise) const {
    const auto it = values_.find(key);
    if (it == values_.end()) {
      return otherwise;
    }
    const std::optional<DType> type = DTypeFromName(it->second);
    if (!type) {
      Refuse(fmt::format("{}={} (want {})", key, it->second, DTypeNames()));
    }
    return *type;
  }

 private:
  void Add(std::string_view pair) {
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos) {
      Refuse(fmt::format("'{}' (want key=value)", pair));
    }
    const std::string key(pair.substr(0, equals));
    const auto& keys = Keys();
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      Refuse(fmt::format("unknown key '{}'{} (known: {})", key, DidYouMean(key, keys),
                         fmt::join(keys, ", ")));
    }
    if (!values_.emplace(key, pair.substr(equals + 1)).second) {
      Refuse(fmt::format("'{}' is given twice", key));
    }
  }

  std::map<std::string, std::string> values_;
};

std::string LowerCase(const char* text) {
  std::string lower = text;
  for (char& c : lower) {
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return lower;
}

ModelConfig FamilyOf(const Pairs& pairs) {
  const std::string name = pairs.Text("arch", ModelConfig().architecture);
  const Architecture* arch = FindArchitecture(name);
  if (arch == nullptr) {
    Refuse(fmt::format("arch={} (want {})", name, fmt::join(ArchitectureNames(), ", ")));
  }
  return FamilyConfig(*arch);
}

void ReadRopeScaling(const Pairs& pairs, SyntheticSpec& spec) {
  ModelConfig& config = spec.config;
  config.rope_magnitude = pairs.Number("attn", 1.0f);
  pairs.RequireWith("fast", "yarn");
  pairs.RequireWith("slow", "yarn");
  pairs.RequireWith("yarn", "orig");
  pairs.RequireWith("low", "llama3");
  pairs.RequireWith("high", "llama3");
  pairs.RequireWith("llama3", "orig");
  if (pairs.Has("yarn")) {
    YarnScaling yarn;
    yarn.factor = pairs.Number("yarn", yarn.factor);
    yarn.original_context = pairs.Number("orig", 0u);
    yarn.beta_fast = pairs.Number("fast", yarn.beta_fast);
    yarn.beta_slow = pairs.Number("slow", yarn.beta_slow);
    config.yarn = yarn;
  }
  if (pairs.Has("llama3")) {
    Llama3Scaling llama3;
    llama3.factor = pairs.Number("llama3", llama3.factor);
    llama3.original_context = pairs.Number("orig", 0u);
    llama3.low_freq_factor = pairs.Number("low", llama3.low_freq_factor);
    llama3.high_freq_factor = pairs.Number("high", llama3.high_freq_factor);
    std::string problem = Llama3ScalingProblem(llama3);
    if (problem.empty()) problem = ConfigProblem(config);
    if (!problem.empty()) Refuse(problem);
    spec.llama3 = llama3;
    config.rope_factors = Llama3RopeFactors(llama3, config.rope_dim, config.rope_theta);
  }
  if (pairs.Has("orig") && !config.yarn && !spec.llama3) {
    Refuse("orig without yarn or llama3");
  }
  if (config.yarn && spec.llama3) Refuse("yarn and llama3 exclude each other");
}

std::string FormatRopeScaling(const SyntheticSpec& spec) {
  const ModelConfig& config = spec.config;
  std::string text;
  if (config.yarn) {
    text +=
        fmt::format(",yarn={},orig={},fast={},slow={}", config.yarn->factor,
                    config.yarn->original_context, config.yarn->beta_fast, config.yarn->beta_slow);
  }
  if (spec.llama3) {
    text += fmt::format(",llama3={},orig={},low={},high={}", spec.llama3->factor,
                        spec.llama3->original_context, spec.llama3->low_freq_factor,
                        spec.llama3->high_freq_factor);
  }
  if (config.rope_magnitude != 1.0f) {
    text += fmt::format(",attn={}", config.rope_magnitude);
  }
  return text;
}

}  // namespace

SyntheticSpec ParseSyntheticSpec(std::string_view text) {
  static constexpr std::string_view kPrefix = "synthetic:";
  if (text.starts_with(kPrefix)) {
    text.remove_prefix(kPrefix.size());
  }
  const Pairs pairs(text);
  SyntheticSpec spec;
  ModelConfig& config = spec.config;
  config = FamilyOf(pairs);
  config.hidden = pairs.RequiredU32("h");
  config.n_layers = pairs.RequiredU32("l");
  config.n_heads = pairs.RequiredU32("heads");
  config.n_kv_heads = pairs.Number("kv", config.n_heads);
  if (!pairs.Has("hd") && (config.n_heads == 0 || config.hidden % config.n_heads != 0)) {
    Refuse(fmt::format("h={} is no multiple of heads={} (give the head width as hd=...)",
                       config.hidden, config.n_heads));
  }
  config.head_dim =
      pairs.Has("hd") ? pairs.Number<uint32_t>("hd", 0) : config.hidden / config.n_heads;
  config.ffn = pairs.Number("ffn", (config.hidden * 4 + 31) / 32 * 32);
  config.vocab = pairs.Number("vocab", 1024u);
  config.context = pairs.Number("ctx", 2048u);
  config.rope_dim = pairs.Number("rope", config.head_dim);
  config.rope_theta = pairs.Number("theta", 10000.0f);
  config.rope_scale = pairs.Number("scale", 1.0f);
  config.norm_eps = pairs.Number("eps", 1e-5f);
  config.tied_embedding = pairs.Flag("tied", true);
  config.rope_interleaved = pairs.Flag("interleaved", config.rope_interleaved);
  config.attention_bias = pairs.Flag("bias", config.attention_bias);
  config.sliding_window = pairs.Number("window", 0u);
  ReadRopeScaling(pairs, spec);
  spec.type = pairs.Type("type", DType::kF32);
  spec.embedding_type = pairs.Type("embed", Traits(spec.type).quantized ? DType::kQ8_0 : spec.type);
  spec.seed = pairs.Number("seed", uint64_t{1});
  spec.shared_layers = pairs.Flag("shared", false);
  const std::string problem = SyntheticProblem(spec);
  if (!problem.empty()) {
    Refuse(fmt::format("{}: {}", text, problem));
  }
  return spec;
}

std::string FormatSyntheticSpec(const SyntheticSpec& spec) {
  const ModelConfig& config = spec.config;
  const Architecture* arch = FindArchitecture(config.architecture);
  const ModelConfig usual = arch == nullptr ? ModelConfig() : FamilyConfig(*arch);
  std::string text = fmt::format(
      "h={},l={},heads={},kv={},hd={},ffn={},vocab={},ctx={},type={},embed={},tied={},seed={}",
      config.hidden, config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim,
      config.ffn, config.vocab, config.context, LowerCase(ToString(spec.type)),
      LowerCase(ToString(spec.embedding_type)), config.tied_embedding ? 1 : 0, spec.seed);
  if (config.norm_eps != usual.norm_eps) {
    text += fmt::format(",eps={}", config.norm_eps);
  }
  if (config.rope_theta != usual.rope_theta) {
    text += fmt::format(",theta={}", config.rope_theta);
  }
  if (config.rope_dim != config.head_dim) {
    text += fmt::format(",rope={}", config.rope_dim);
  }
  if (config.rope_scale != usual.rope_scale) {
    text += fmt::format(",scale={}", config.rope_scale);
  }
  if (config.rope_interleaved != usual.rope_interleaved) {
    text += fmt::format(",interleaved={}", config.rope_interleaved ? 1 : 0);
  }
  if (spec.shared_layers) {
    text += ",shared=1";
  }
  if (config.architecture != ModelConfig().architecture) {
    text += fmt::format(",arch={}", config.architecture);
  }
  if (config.attention_bias != usual.attention_bias) {
    text += fmt::format(",bias={}", config.attention_bias ? 1 : 0);
  }
  if (config.sliding_window != 0) {
    text += fmt::format(",window={}", config.sliding_window);
  }
  text += FormatRopeScaling(spec);
  return text;
}

}  // namespace tandem

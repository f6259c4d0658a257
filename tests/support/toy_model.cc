// The toy's arithmetic and its plan-free forward pass. See toy_executor.h.
#include <algorithm>
#include <cmath>
#include <random>

#include "tests/support/toy_executor.h"

namespace tandem::testing {

ToyModel::ToyModel(const BlockGraph& graph, uint64_t seed) : graph_(graph) {
  std::mt19937_64 random(seed);
  auto fill = [&](std::vector<double>& values, size_t n) {
    values.resize(n);
    for (double& v : values) v = static_cast<double>(random() >> 11) * 0x1p-52 - 1.0;
  };
  for (const Block& block : graph_.blocks) {
    uint32_t floats = block.kind == BlockKind::kAttention ? 4 * head_dim() * hidden()
                      : block.kind == BlockKind::kMlp     ? 2 * hidden()
                                                          : hidden();
    floats_.push_back(floats);
    fill(weights_.emplace_back(), size_t{block.elems} * floats);
    fill(norms_.emplace_back(), hidden());
  }
}

const double* ToyModel::Element(uint32_t block, uint32_t element) const {
  return &weights_[block][size_t{element} * floats_[block]];
}

const double* ToyModel::NormOf(uint32_t block) const { return norms_[block].data(); }

double ToyModel::Dot(const double* w, const double* n) const {
  double sum = 0;
  for (uint32_t i = 0; i < hidden(); ++i) sum += w[i] * n[i];
  return sum;
}

void ToyModel::Normed(uint32_t block, const double* x, double* out) const {
  double scale = 1.0 / std::sqrt(Dot(x, x) / hidden() + 1e-3);
  for (uint32_t i = 0; i < hidden(); ++i) out[i] = x[i] * scale * norms_[block][i];
}

void ToyModel::EmbedElement(const double* w, uint32_t token, uint32_t element, double* out) const {
  double share = token == element ? 1.0 : 0.125 * ((token + 3 * element) % 5 + 1);
  for (uint32_t i = 0; i < hidden(); ++i) out[i] += share * w[i];
}

void ToyModel::MlpElement(const double* w, const double* n, double* out) const {
  double a = Dot(w, n);
  a = a / (1.0 + std::abs(a));
  for (uint32_t i = 0; i < hidden(); ++i) out[i] += w[hidden() + i] * a;
}

void ToyModel::KeyValue(const double* w, const double* n, uint32_t position, double* kv) const {
  uint32_t d = head_dim();
  for (uint32_t i = 0; i < 2 * d; ++i) kv[i] = Dot(&w[size_t{d + i} * hidden()], n);
  for (uint32_t i = 0; i < d; ++i) kv[i] += 0.25 * position * (i % 2 == 0 ? 1 : -1);
}

void ToyModel::Attend(const double* w, const double* n, const double* kv, uint32_t count,
                      double* out) const {
  uint32_t d = head_dim();
  double weight_sum = 0;
  std::vector<double> q(d), mix(d);
  for (uint32_t i = 0; i < d; ++i) q[i] = Dot(&w[size_t{i} * hidden()], n);
  for (uint32_t t = 0; t < count; ++t) {
    const double* row = kv + size_t{2} * d * t;
    double score = 0;
    for (uint32_t i = 0; i < d; ++i) score += q[i] * row[i];
    double weight = std::exp(score);
    weight_sum += weight;
    for (uint32_t i = 0; i < d; ++i) mix[i] += weight * row[d + i];
  }
  const double* wo = &w[size_t{3} * d * hidden()];
  for (uint32_t i = 0; i < hidden(); ++i) {
    for (uint32_t k = 0; k < d; ++k) out[i] += wo[i * d + k] * mix[k] / weight_sum;
  }
}

std::vector<double> ToyModel::Forward(const std::vector<uint32_t>& tokens) const {
  size_t h = hidden(), n = tokens.size();
  std::vector<double> x(n * h), normed(n * h), y(n * h);
  for (size_t t = 0; t < n; ++t) {
    for (uint32_t e = 0; e < vocab(); ++e) EmbedElement(Element(0, e), tokens[t], e, &x[t * h]);
  }
  uint32_t head = graph_.head().value;
  for (uint32_t b = 1; b < head; ++b) {
    for (size_t t = 0; t < n; ++t) Normed(b, &x[t * h], &normed[t * h]);
    std::fill(y.begin(), y.end(), 0.0);
    std::vector<double> kv(n * 2 * head_dim());
    for (uint32_t e = 0; e < graph_.blocks[b].elems; ++e) {
      const double* w = Element(b, e);
      bool attention = graph_.blocks[b].kind == BlockKind::kAttention;
      for (uint32_t t = 0; t < n; ++t) {
        if (attention) {
          KeyValue(w, &normed[t * h], t, &kv[size_t{t} * 2 * head_dim()]);
          Attend(w, &normed[t * h], kv.data(), t + 1, &y[t * h]);
        } else {
          MlpElement(w, &normed[t * h], &y[t * h]);
        }
      }
    }
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  std::vector<double> logits(n * vocab());
  for (size_t t = 0; t < n; ++t) {
    Normed(head, &x[t * h], &normed[t * h]);
    for (uint32_t e = 0; e < vocab(); ++e) {
      logits[t * vocab() + e] = Dot(Element(head, e), &normed[t * h]);
    }
  }
  return logits;
}

}  // namespace tandem::testing

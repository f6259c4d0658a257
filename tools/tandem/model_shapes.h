// Shapes of the catalogue as models: names without weights. A weight type may follow a shape's name
// ("llama-3.1-70b-q4_k"): the same shape in that type.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/model/model.h"
#include "engine/model/synthetic.h"

namespace tandem {

// What a shape's name stands for; nothing where it is none, or an installed model has that name.
std::optional<SyntheticSpec> FindShape(const std::string& name);

// Whether -m VALUE would get generated weights: a shape, or "synthetic:...". Such a model has no
// tokenizer.
bool IsGenerated(const std::string& value);

// A generated model, or its shape alone. Says on stderr what it does where that takes a while.
std::shared_ptr<const Model> GenerateModel(const SyntheticSpec& spec, bool shape_only);

// "BF16, 16.1 GB": what a model's weights are.
std::string WeightsText(const Model& model);

// Where `value` names a shape in a type that is not quantised: a line that says so and names the
// quantised one. Else "".
std::string QuantisedHint(const std::string& value, const Model& model);

}  // namespace tandem

// Files that are built into the program, so that it serves them from nowhere else: page.html and
// openapi.yaml of this folder. The definitions are written by embed.cmake at build time.
#pragma once

#include <string_view>

namespace tandem {

std::string_view PageHtml();
std::string_view OpenApiYaml();

}  // namespace tandem

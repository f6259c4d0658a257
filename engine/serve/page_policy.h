// The content security policy of a self-contained page: its own inline style and script, named by
// their hashes, may run and speak to the server that sent it; nothing else may.
#pragma once

#include <string>
#include <string_view>

namespace tandem {

// `html` holds at most one <style> and one <script>, both without attributes.
std::string PagePolicy(std::string_view html);

}  // namespace tandem

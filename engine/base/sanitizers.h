// Which sanitizer this build has. What depends on it: bounds on the address space, which a
// sanitizer's shadow alone is beyond, and what would hide an overrun from it. GCC says it by
// macros, clang 19 by features; this is the one place that asks.
#pragma once

namespace tandem {

#if defined(__has_feature)
inline constexpr bool kAddressSanitizer = __has_feature(address_sanitizer);
inline constexpr bool kThreadSanitizer = __has_feature(thread_sanitizer);
#else
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
#endif

}  // namespace tandem

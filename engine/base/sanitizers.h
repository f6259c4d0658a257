// Which sanitizer this build has. What depends on it: bounds on the address space, which a
// sanitizer's shadow alone is beyond, and what would hide an overrun from it. GCC says it by a
// macro, clang 19 by a feature; this is the one place that asks.
#pragma once

#if defined(__has_feature)
#define TANDEM_HAS_FEATURE(feature) __has_feature(feature)
#else
#define TANDEM_HAS_FEATURE(feature) 0
#endif

namespace tandem {

#if defined(__SANITIZE_ADDRESS__) || TANDEM_HAS_FEATURE(address_sanitizer)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

#if defined(__SANITIZE_THREAD__) || TANDEM_HAS_FEATURE(thread_sanitizer)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

}  // namespace tandem

#undef TANDEM_HAS_FEATURE

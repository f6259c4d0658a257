// The ABI header compiled as C11.
#define LAYOUT_FUNCTION LayoutAsC
#include "abi_layout.inc"

// The C interface between tandem and a plugin that splits a model over devices. C11 and C++20; a
// plugin needs this file alone and links to nothing of tandem. tandem/plugin.hpp is a C++ wrapper.
//
// A plugin never runs the model. Its plan() reads a problem (blocks made of units, devices, links,
// limits) and writes a plan through the host's callbacks: where weights live, and for each program
// one list of operations with every movement explicit. The host verifies the plan, prices it, runs
// it and books its traffic. plan() is a pure function of the problem and its knobs: no threads,
// files, clocks, randomness or GPU calls; the same input gives the same plan, call for call.
//
// Thread:    one thread, one plan() at a time; callbacks only on that thread, only during plan().
// Lifetime:  what the plugin passes in is copied before the callback returns; what the host passes
//            in lives until plan() returns. Descriptors and strings that
//            tandem_plugin_entry_v1() leads to live as long as the process. Nothing is freed across
//            the boundary, and a plugin is never unloaded.
// Strings:   UTF-8, NUL-terminated.
// Exceptions: none may cross.
// Growth:    every struct begins with struct_size, the size its writer was compiled with; arrays of
//            structs are arrays of pointers. A later minor version appends fields, callbacks and
//            enum values, and changes nothing else. A reader takes min(struct_size, its own size)
//            bytes; a struct longer than the host knows is accepted only if the unknown tail is
//            zero. `reserved` fields are zero.
// Isolation: the host opens a plugin only in a helper process bounded in time and memory.
#pragma once

#include <stdint.h>

#define TANDEM_ABI_MAJOR 1u
#define TANDEM_ABI_MINOR 1u

#if defined(__GNUC__)
#define TANDEM_EXPORT __attribute__((visibility("default")))
#else
#define TANDEM_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Zero is success, negative is failure. A callback that fails has told the host why; a plugin
// returns a failing status unchanged, or drops the draft with reset() and goes on.
typedef int32_t tandem_status;
enum {
  TANDEM_OK = 0,
  TANDEM_ERROR = -1,        // anything without a status of its own
  TANDEM_INVALID = -2,      // a knob's value is wrong
  TANDEM_UNSUPPORTED = -3,  // this plugin cannot split this model over these devices
  TANDEM_REFUSED = -4,      // the host refused a call, or the draft breaks a rule of plans
  TANDEM_NO_FIT = -5        // the draft is right but needs more memory than there is
};

// A device, 0-based; or the host's memory, which holds weights and runs nothing.
typedef int32_t tandem_device_id;
#define TANDEM_HOST (-1)

// Ids the host issues. Zero is never one; an id is good until the next program() (values) or
// reset() (values and slots).
typedef uint32_t tandem_value;
typedef uint32_t tandem_slot_id;

// Kinds of block. Outputs of EMBED, ATTENTION, MLP and MOE over disjoint units are summed to the
// whole, those of HEAD are concatenated.
enum {
  TANDEM_BLOCK_EMBED = 1,
  TANDEM_BLOCK_ATTENTION = 2,
  TANDEM_BLOCK_MLP = 3,
  TANDEM_BLOCK_MOE = 4,
  TANDEM_BLOCK_HEAD = 5
};

// Kinds of op; the comment names tandem_op's fields that the kind reads, all others are zero.
//
// The chain, for block b = 1 .. HEAD: N = NORM_b(X), Y = RUN_b(N), X' = ADD_b(X, whole Y). EMBED's
// RUN makes the first X from token ids; HEAD's RUN makes logits. A RUN over part of a block's units
// gives a partial; only a reduce (or, for HEAD, a gather) makes it whole.
enum {
  TANDEM_OP_RUN = 1,     // 1 device, microbatch, block, units; in: N (EMBED: none); out: Y, X or L
  TANDEM_OP_NORM = 2,    // 1 device, microbatch, block; in: X; out: N for that block
  TANDEM_OP_ADD = 3,     // 1 device, microbatch, block; in: X, whole Y; out: X after that block
  TANDEM_OP_SAMPLE = 4,  // 1 device, microbatch; in: logits of the whole vocabulary; out: none
  // Collectives: the ranks as devices, microbatch, path, queue; one value in and out a rank.
  TANDEM_OP_ALL_REDUCE = 16,      // also algorithm; disjoint partials -> the whole on each
  TANDEM_OP_REDUCE_SCATTER = 17,  // disjoint partials -> token shard i on rank i
  TANDEM_OP_ALL_GATHER = 18,      // token shards, or logits of disjoint units -> whole on each
  TANDEM_OP_ALL_TO_ALL = 19,      // not in 1.0
  // Movements between two devices, {from, to}: path, queue.
  TANDEM_OP_TRANSFER = 32,  // microbatch; in: a value on `from`; out: the same on `to`
  TANDEM_OP_FETCH = 33,     // block, units, slot: weights from a device or the host into a slot
  TANDEM_OP_KV_MOVE = 34,   // microbatch, block, units: their KV becomes current on `to`
  TANDEM_OP_KV_SHARD = 35   // not in 1.0
};

// Straight-line programs; a plan needs a PREFILL and a DECODE for each lane.
enum {
  TANDEM_PROGRAM_PREFILL = 1,
  TANDEM_PROGRAM_DECODE = 2,
  TANDEM_PROGRAM_DRAFT = 3,  // not in 1.0
  TANDEM_PROGRAM_VERIFY = 4  // not in 1.0
};

// What a microbatch is: nothing (there is one), consecutive chunks of the step's rows, or groups of
// sequences (stable from step to step).
enum {
  TANDEM_MICROBATCH_NONE = 0,
  TANDEM_MICROBATCH_BY_CHUNK = 1,
  TANDEM_MICROBATCH_BY_SEQUENCE = 2
};

// How bytes travel. AUTO in an op means what the problem asks for.
enum {
  TANDEM_PATH_AUTO = 0,
  TANDEM_PATH_LOCAL = 1,
  TANDEM_PATH_COPY = 2,
  TANDEM_PATH_P2P = 3,
  TANDEM_PATH_HOST_STAGED = 4,
  TANDEM_PATH_NCCL = 5
};

// One-shot: each rank sends its whole partial to every other. Two-shot: a reduce-scatter and an
// all-gather. DEFAULT is one-shot for two devices; more than two must name one.
enum { TANDEM_ALGORITHM_DEFAULT = 0, TANDEM_ALGORITHM_ONE_SHOT = 1, TANDEM_ALGORITHM_TWO_SHOT = 2 };

// Queues of a device; the order of a queue is the order of the list. DEFAULT: RUN, NORM, ADD and
// SAMPLE compute; FETCH copy-in; KV_MOVE copy-out and copy-in; TRANSFER and collectives comm.
enum {
  TANDEM_QUEUE_DEFAULT = 0,
  TANDEM_QUEUE_COMPUTE = 1,
  TANDEM_QUEUE_COPY_IN = 2,
  TANDEM_QUEUE_COPY_OUT = 3,
  TANDEM_QUEUE_COMM = 4
};

// Element type of activations on a link.
enum { TANDEM_WIRE_F32 = 1, TANDEM_WIRE_BF16 = 2, TANDEM_WIRE_Q8 = 3 };

enum {
  TANDEM_LINK_IDEAL = 1,
  TANDEM_LINK_NVLINK = 2,
  TANDEM_LINK_PCIE_P2P = 3,
  TANDEM_LINK_HOST_STAGED = 4,
  TANDEM_LINK_LOCAL = 5
};

enum { TANDEM_KNOB_INT = 1, TANDEM_KNOB_DOUBLE = 2, TANDEM_KNOB_BOOL = 3, TANDEM_KNOB_STRING = 4 };

enum { TANDEM_DIAG_INFO = 1, TANDEM_DIAG_WARNING = 2, TANDEM_DIAG_ERROR = 3 };

// ---- The problem: host to plugin, read-only, valid until plan() returns.

typedef struct tandem_device {
  uint32_t struct_size;
  tandem_device_id id;
  uint64_t memory_bytes;      // capacity; 0: unlimited
  double memory_bytes_per_s;  // peak
  double flops;               // peak, a multiply-add counts as two
  double memory_efficiency;   // share of the peak that decode reaches
  double compute_efficiency;  // share of the peak that prefill reaches
  double launch_gap_s;        // fixed cost of an op
  double share;               // relative share asked for (--tensor-split); 1 each when none was
  const char* name;
  // Since 1.1: 1 for the host's own processor beside cards. Its links are the host's, its memory
  // is beside host_memory_bytes; it is fetched neither to nor from and takes no part in
  // collectives.
  uint32_t on_host;
  uint32_t reserved;
} tandem_device;

// One direction between two devices, or a device and the host.
typedef struct tandem_link {
  uint32_t struct_size;
  uint32_t kind;
  tandem_device_id src;
  tandem_device_id dst;
  double latency_s;    // time of the smallest measured size
  double bytes_per_s;  // slope between the two largest; 0: takes no time (an ideal link)
  // The measured curve: seconds[i] for one send of bytes[i], sizes increasing. Of sends that are
  // asked for one by one; within a step that is replayed they may take less.
  const uint64_t* bytes;
  const double* seconds;
  uint32_t n_points;
  uint32_t full_duplex;  // 1: both directions at once at full rate
} tandem_link;

// One block of the chain. A range of units [u, v) covers elements [u*e, min(v*e, elems)) with
// e = elems_per_unit; its weights are that many times bytes_per_elem, exactly.
typedef struct tandem_block {
  uint32_t struct_size;
  uint32_t kind;
  uint32_t layer;  // of ATTENTION, MLP, MOE
  uint32_t units;
  uint32_t elems_per_unit;  // KV heads, (some) FFN columns, vocabulary rows; the last unit may have
                            // fewer
  uint32_t elems;           // of the whole block
  uint32_t sums;            // 1: partial outputs are summed; 0: concatenated
  uint32_t reserved;
  uint64_t bytes_per_elem;
  uint64_t params_per_elem;          // multiply-adds an element costs for one token
  uint64_t kv_bytes_per_elem_token;  // ATTENTION; else 0
  uint64_t norm_bytes;               // of its norm vectors, on every device that applies them
} tandem_block;

typedef struct tandem_problem {
  uint32_t struct_size;
  uint32_t n_devices;  // devices[i]->id == i
  uint32_t n_links;
  uint32_t n_blocks;  // EMBED, then ATTENTION and MLP a layer, then HEAD
  const tandem_device* const* devices;
  const tandem_link* const* links;
  const tandem_block* const* blocks;
  uint32_t n_layers;
  uint32_t hidden;        // width of an activation row
  uint32_t tied;          // 1: EMBED and HEAD share one weight; a device stores shared units once
  uint32_t wire;          // TANDEM_WIRE_*: fixed for the whole plan
  uint32_t path;          // TANDEM_PATH_*: what every movement between devices must use
  uint32_t shares_given;  // 1: the user asked for the devices' shares
  uint32_t max_step_tokens;  // rows of the largest step
  uint32_t max_sequences;    // sequences alive at once
  uint32_t context;          // tokens of KV in all, over all sequences
  uint32_t reserved;
  uint64_t wire_row_bytes;  // one activation row on a link
  uint64_t host_memory_bytes;
} tandem_problem;

// ---- What a plugin writes: plugin to host, copied during the call.

// Units of a block resident on a device or in the host's memory.
typedef struct tandem_place {
  uint32_t struct_size;
  uint32_t block;
  uint32_t unit_begin;
  uint32_t unit_end;
  tandem_device_id device;
  uint32_t reserved;
} tandem_place;

// Staging memory on a device for fetched weights; its content is unknown when a program starts.
typedef struct tandem_slot {
  uint32_t struct_size;
  tandem_device_id device;
  uint64_t bytes;
} tandem_slot;

// Opens a program: the ops that follow belong to it. Lanes (0, 1, ...) share no compute queue; each
// serves its own sequences.
typedef struct tandem_program {
  uint32_t struct_size;
  uint32_t kind;
  uint32_t lane;
  uint32_t microbatches;
  uint32_t microbatch_kind;
  uint32_t reserved;
} tandem_program;

typedef struct tandem_op {
  uint32_t struct_size;
  uint32_t kind;
  uint32_t microbatch;
  uint32_t block;
  uint32_t unit_begin;  // an empty range [u, u) is legal: a partial of nothing
  uint32_t unit_end;
  tandem_slot_id slot;
  uint32_t path;
  uint32_t algorithm;
  uint32_t queue;
  uint32_t n_devices;
  uint32_t n_in;
  uint32_t n_out;  // room in `out`: exactly the values that the op gives
  uint32_t reserved;
  const tandem_device_id* devices;
  const tandem_value* in;
  tandem_value* out;  // filled by the host
} tandem_op;

// What a draft costs on the problem's rig. Filled by the host.
typedef struct tandem_price {
  uint32_t struct_size;
  uint32_t reserved;
  double prefill_seconds;  // a prompt of min(512, max_step_tokens, context) tokens on lane 0
  double decode_seconds;   // one step of one sequence at half the context, on lane 0
  // Since 1.1: one step of max_sequences sequences, each at half its part of the context, on lane 0
  double full_decode_seconds;
} tandem_price;

// ---- The host's callbacks.

typedef struct tandem_host {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;
  void* ctx;  // first argument of every callback

  // The value of a knob this plugin declares (the user's, else the default), checked against the
  // declared type. Null for a key it does not declare.
  // [thread: plan()'s; lifetime: until plan() returns]
  const char* (*knob)(void* ctx, const char* key);

  // 1 if this host and rig have a feature, else 0: "op.NAME", "program.NAME", "path.NAME",
  // "algorithm.NAME", "wire.NAME" with lower-case names as in the enums above.
  // [thread: plan()'s; `feature` is not kept]
  int32_t (*supports)(void* ctx, const char* feature);

  // Adds a resident place. [thread: plan()'s; the struct is copied]
  tandem_status (*place)(void* ctx, const tandem_place* place);

  // Adds a staging slot and gives its id. [thread: plan()'s; struct copied, *out written]
  tandem_status (*slot)(void* ctx, const tandem_slot* slot, tandem_slot_id* out);

  // Opens a program. [thread: plan()'s; the struct is copied]
  tandem_status (*program)(void* ctx, const tandem_program* program);

  // Appends an op to the open program and writes the ids of its results to op->out.
  // [thread: plan()'s; the struct and its arrays are copied, op->out written]
  tandem_status (*op)(void* ctx, const tandem_op* op);

  // Verifies the draft, which must be a whole plan: OK, NO_FIT or REFUSED. The draft stays.
  // [thread: plan()'s]
  tandem_status (*check)(void* ctx);

  // Verifies and prices the draft as check() does. The draft stays.
  // [thread: plan()'s; *out written, with out->struct_size set by the plugin]
  tandem_status (*price)(void* ctx, tandem_price* out);

  // Drops the draft, with every id issued and every refusal: search loops. [thread: plan()'s]
  tandem_status (*reset)(void* ctx);

  // A message for the user. [thread: plan()'s; `text` is copied]
  void (*diag)(void* ctx, int32_t level, const char* text);
} tandem_host;

// ---- The plugin.

typedef struct tandem_knob {
  uint32_t struct_size;
  uint32_t type;
  const char* name;  // [a-z][a-z0-9_]*
  const char* default_value;
  const char* help;         // one sentence
  const char* const* grid;  // values that `auto` tries; may be empty: the default alone
  uint32_t n_grid;
  uint32_t reserved;
} tandem_knob;

typedef struct tandem_plugin {
  uint32_t struct_size;
  uint32_t abi_major;         // must be the host's
  uint32_t abi_minor_built;   // of the header it was compiled with; information only
  uint32_t abi_minor_needed;  // the host's must be at least this; 0 unless later things are used
  const char* name;           // [a-z][a-z0-9_]*, the name of its file
  const char* version;
  const char* summary;  // one sentence
  const tandem_knob* const* knobs;
  uint32_t n_knobs;
  uint32_t reserved;

  // Writes one plan for `problem`. A pure function: no threads, files, clocks, randomness.
  // [thread: the helper's only one; `problem` and `host` until it returns]
  tandem_status (*plan)(const tandem_problem* problem, const tandem_host* host);
} tandem_plugin;

// The one symbol a plugin exports; its name carries the ABI's major version. Does no work beyond
// returning a descriptor, and may return null to say that it cannot be used.
// [thread: the helper's only one; the result lives as long as the process]
TANDEM_EXPORT const tandem_plugin* tandem_plugin_entry_v1(void);

#ifdef __cplusplus
}
#endif

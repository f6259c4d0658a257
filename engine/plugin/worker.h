// The helper process's part of planning: reads a request from the channel, opens the plugin, lets
// it write a plan against the host's callbacks, and answers on the channel. The only place where a
// plugin's shared object is opened.
#pragma once

namespace tandem {

// `channel` is a socket that no plugin knows of. Everything that goes wrong is told in the reply;
// false when even that could not be written.
bool ServePlanRequest(int channel);

}  // namespace tandem

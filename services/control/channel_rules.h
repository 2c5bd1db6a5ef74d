// What is wrong with a scenario's channels, and with who is granted what.
//
// Which roles a channel has:
//
//   channel        roles                     at most
//   pipe           READ, WRITE               one reader
//   pipe duplex    READ_WRITE                two ends
//   shm, mqueue    READ, WRITE, READ_WRITE
#ifndef SERVICES_CONTROL_CHANNEL_RULES_H_
#define SERVICES_CONTROL_CHANNEL_RULES_H_

#include "services/control/scenario_parser.h"

namespace parley::control {

void CheckChannels(const ParsedScenario& parsed, Diagnostics& diagnostics);
void CheckGrants(const ParsedScenario& parsed, Diagnostics& diagnostics);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_CHANNEL_RULES_H_

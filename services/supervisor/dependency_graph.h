// The order in which processes that depend on each other can start.
//
// Nodes are 0, 1, …; edges[i] are those that i depends on.
#ifndef SERVICES_SUPERVISOR_DEPENDENCY_GRAPH_H_
#define SERVICES_SUPERVISOR_DEPENDENCY_GRAPH_H_

#include <vector>

namespace parley::supervisor {

using DependencyEdges = std::vector<std::vector<int>>;

// A cycle, such as {1, 4, 1}: 1 depends on 4, which depends on 1. Empty if
// there is none.
std::vector<int> FindCycle(const DependencyEdges& edges);

// Nodes by the longest way to one that depends on nothing, which makes up the
// first wave. Requires that there is no cycle.
std::vector<std::vector<int>> Waves(const DependencyEdges& edges);

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_DEPENDENCY_GRAPH_H_

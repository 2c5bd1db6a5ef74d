#include "services/supervisor/dependency_graph.h"

#include <algorithm>
#include <cstddef>

namespace parley::supervisor {

// Depth first, by a stack of our own: a graph may be deeper than the thread's.
std::vector<int> FindCycle(const DependencyEdges& edges) {
  enum class Seen { kNot, kOnPath, kWhole };
  std::vector<Seen> seen(edges.size(), Seen::kNot);
  struct Step {
    int node;
    size_t next_edge;
  };
  std::vector<Step> path;
  const auto enter = [&](int node) {
    seen[node] = Seen::kOnPath;
    path.push_back({node, 0});
  };
  for (size_t root = 0; root < edges.size(); ++root) {
    if (seen[root] == Seen::kNot) enter(static_cast<int>(root));
    while (!path.empty()) {
      Step& last = path.back();
      if (last.next_edge == edges[last.node].size()) {
        seen[last.node] = Seen::kWhole;
        path.pop_back();
        continue;
      }
      const int on = edges[last.node][last.next_edge++];
      if (seen[on] == Seen::kNot) {
        enter(on);
      } else if (seen[on] == Seen::kOnPath) {
        std::vector<int> cycle;
        auto it =
            std::find_if(path.begin(), path.end(),
                         [on](const Step& step) { return step.node == on; });
        for (; it != path.end(); ++it) cycle.push_back(it->node);
        cycle.push_back(on);
        return cycle;
      }
    }
  }
  return {};
}

std::vector<std::vector<int>> Waves(const DependencyEdges& edges) {
  std::vector<size_t> level(edges.size(), 0);
  // Without a cycle no way is longer than the number of nodes.
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < edges.size(); ++i) {
      for (const int on : edges[i]) {
        if (level[i] <= level[on]) {
          level[i] = level[on] + 1;
          changed = true;
        }
      }
    }
  }
  std::vector<std::vector<int>> waves;
  for (size_t i = 0; i < edges.size(); ++i) {
    if (waves.size() <= level[i]) waves.resize(level[i] + 1);
    waves[level[i]].push_back(static_cast<int>(i));
  }
  return waves;
}

}  // namespace parley::supervisor

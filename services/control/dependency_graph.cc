#include "services/control/dependency_graph.h"

#include <algorithm>
#include <cstddef>

namespace parley::control {
namespace {

// Depth-first search that follows at most one path of the size of the graph.
class CycleFinder {
 public:
  explicit CycleFinder(const DependencyEdges& edges)
      : edges_(edges), seen_(edges.size()) {}

  std::vector<int> Find() {
    for (size_t i = 0; i < edges_.size(); ++i) {
      if (Visit(static_cast<int>(i))) return path_;
    }
    return {};
  }

 private:
  // Whether a cycle was found, which path_ then is.
  bool Visit(int node) {
    const auto on_path = std::find(path_.begin(), path_.end(), node);
    if (on_path != path_.end()) {
      path_.erase(path_.begin(), on_path);
      path_.push_back(node);
      return true;
    }
    if (seen_[node]) return false;
    seen_[node] = true;
    path_.push_back(node);
    for (const int next : edges_[node]) {
      if (Visit(next)) return true;
    }
    path_.pop_back();
    return false;
  }

  const DependencyEdges& edges_;
  std::vector<bool> seen_;
  std::vector<int> path_;
};

}  // namespace

std::vector<int> FindCycle(const DependencyEdges& edges) {
  return CycleFinder(edges).Find();
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

}  // namespace parley::control

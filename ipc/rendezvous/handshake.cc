#include "ipc/rendezvous/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace ipc::rendezvous {
namespace {

constexpr absl::string_view kChallenge = "#CHALLENGE#";
constexpr absl::string_view kWelcome = "#WELCOME#";
constexpr absl::string_view kFailure = "#FAILURE#";
constexpr absl::string_view kOurDigest = "sha256";

constexpr size_t kNonceBytes = 40;
// What Python asks for at least.
constexpr size_t kMinChallengeBytes = 20;
constexpr size_t kMd5Bytes = 16;

// A digest by the name that Python has for it.
struct Digest {
  absl::string_view name;
  const char* openssl_name;
  bool is_md5;
};
constexpr Digest kDigests[] = {
    {"sha256", "SHA256", false},
    {"sha384", "SHA384", false},
    {"sha3_256", "SHA3-256", false},
    {"sha3_384", "SHA3-384", false},
    {"md5", "MD5", true},
};

const Digest* FindDigest(absl::string_view name) {
  for (const Digest& digest : kDigests) {
    if (digest.name == name) return &digest;
  }
  return nullptr;
}

// What stands before "{name}" of a message, if it begins so.
struct Prefixed {
  absl::string_view name;
  absl::string_view rest;
};
std::optional<Prefixed> SplitPrefix(absl::string_view message) {
  if (!absl::ConsumePrefix(&message, "{")) return std::nullopt;
  const size_t end = message.find('}');
  if (end == absl::string_view::npos) return std::nullopt;
  return Prefixed{message.substr(0, end), message.substr(end + 1)};
}

// Empty if this machine's OpenSSL lacks the digest, as MD5 under FIPS.
std::string Hmac(const Digest& digest, absl::string_view key,
                 absl::string_view message) {
  const EVP_MD* const md = EVP_get_digestbyname(digest.openssl_name);
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (md == nullptr ||
      HMAC(md, key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(message.data()),
           message.size(), mac, &size) == nullptr) {
    return "";
  }
  return std::string(reinterpret_cast<const char*>(mac), size);
}

// Takes as long wherever they differ. An empty one, of no digest, is never
// right.
bool IsSame(absl::string_view expected, absl::string_view given) {
  return !expected.empty() && expected.size() == given.size() &&
         CRYPTO_memcmp(expected.data(), given.data(), given.size()) == 0;
}

bool FillRandom(std::string& bytes) {
  // Up to 256 bytes it is all or nothing, and not interrupted: getrandom(2).
  return getrandom(bytes.data(), bytes.size(), 0) ==
         static_cast<ssize_t>(bytes.size());
}

std::string Shown(absl::string_view text) {
  return absl::CHexEscape(text.substr(0, 32));
}

}  // namespace

Handshake::Step Handshake::Fail(absl::string_view reason,
                                std::vector<std::string> send) {
  state_ = State::kFailed;
  return {std::move(send), absl::UnauthenticatedError(reason)};
}

Handshake::Step Handshake::Challenge() {
  std::string nonce(kNonceBytes, '\0');
  if (!FillRandom(nonce)) return Fail("the kernel gave no random bytes");
  challenge_ = absl::StrCat("{", kOurDigest, "}", nonce);
  state_ = State::kAwaitsResponse;
  return {{absl::StrCat(kChallenge, challenge_)}, absl::OkStatus()};
}

Handshake::Step Handshake::Start() {
  if (role_ == Role::kListener) return Challenge();
  state_ = State::kAwaitsChallenge;
  return {};
}

Handshake::Step Handshake::Take(absl::string_view message) {
  switch (state_) {
    case State::kAwaitsResponse:
      return TakeResponse(message);
    case State::kAwaitsChallenge:
      return TakeChallenge(message);
    case State::kAwaitsVerdict:
      return TakeVerdict(message);
    case State::kNew:
    case State::kDone:
    case State::kFailed:
      break;
  }
  return Fail("a message came that nobody waits for");
}

Handshake::Step Handshake::TakeResponse(absl::string_view response) {
  const std::vector<std::string> failure = {std::string(kFailure)};
  const std::optional<Prefixed> prefixed = SplitPrefix(response);
  const Digest* digest = nullptr;
  absl::string_view mac = response;
  // Before all else the length, as a bare MAC may begin like anything.
  if (response.size() == kMd5Bytes) {
    digest = FindDigest("md5");
  } else if (prefixed.has_value()) {
    digest = FindDigest(prefixed->name);
    mac = prefixed->rest;
  }
  if (digest == nullptr) {
    return Fail(absl::StrCat("the peer's response is in no known form: \"",
                             Shown(response), "\""),
                failure);
  }
  if (digest->is_md5 && !allow_md5_) {
    return Fail(
        "the peer's response is by MD5, as Python's up to 3.11, which is not "
        "allowed here: use a newer one, or set allow_md5",
        failure);
  }
  if (!IsSame(Hmac(*digest, key_, challenge_), mac)) {
    return Fail("the peer does not have our auth_key", failure);
  }
  Step step = {{std::string(kWelcome)}, absl::OkStatus()};
  if (role_ == Role::kListener) {
    state_ = State::kAwaitsChallenge;
  } else {
    state_ = State::kDone;
  }
  return step;
}

Handshake::Step Handshake::TakeChallenge(absl::string_view message) {
  absl::string_view challenge = message;
  if (!absl::ConsumePrefix(&challenge, kChallenge)) {
    return Fail(absl::StrCat(
        "the peer does not ask for authentication, but sent \"", Shown(message),
        "\": give it the auth_key, or leave ours out"));
  }
  if (challenge.size() < kMinChallengeBytes) {
    return Fail("the peer's challenge is too short to be one");
  }
  // Old ones are of just this length, and may begin like anything.
  const bool is_old = challenge.size() == kMinChallengeBytes;
  const std::optional<Prefixed> prefixed = SplitPrefix(challenge);
  const Digest* const digest = is_old ? FindDigest("md5")
                               : prefixed.has_value()
                                   ? FindDigest(prefixed->name)
                                   : nullptr;
  if (digest == nullptr) {
    return Fail(absl::StrCat("the peer's challenge is in no known form: \"",
                             Shown(challenge), "\""));
  }
  if (digest->is_md5 && !allow_md5_) {
    return Fail(
        "the peer asks for MD5, as Python's up to 3.11, which is not allowed "
        "here: use a newer one, or set allow_md5");
  }
  const std::string mac = Hmac(*digest, key_, challenge);
  if (mac.empty()) {
    return Fail(absl::StrCat("this machine's OpenSSL has no ", digest->name));
  }
  state_ = State::kAwaitsVerdict;
  return {{is_old ? mac : absl::StrCat("{", digest->name, "}", mac)},
          absl::OkStatus()};
}

Handshake::Step Handshake::TakeVerdict(absl::string_view verdict) {
  if (verdict != kWelcome) {
    return Fail(verdict == kFailure
                    ? std::string("the peer says that we do not have its "
                                  "auth_key, or by a digest that it allows")
                    : absl::StrCat("the peer's verdict is in no known form: \"",
                                   Shown(verdict), "\""));
  }
  if (role_ == Role::kClient) return Challenge();
  state_ = State::kDone;
  return {};
}

}  // namespace ipc::rendezvous

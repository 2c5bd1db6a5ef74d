#include "tests/ipc/rendezvous/right_response.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace ipc::rendezvous {

RightResponse MakeRightResponse(absl::string_view key,
                                absl::string_view message, unsigned choice) {
  constexpr struct {
    const char* prefix;
    const char* openssl_name;
  } kDigests[] = {
      {"{sha256}", "SHA256"},     {"{sha384}", "SHA384"},
      {"{sha3_256}", "SHA3-256"}, {"{sha3_384}", "SHA3-384"},
      {"{md5}", "MD5"},           {"", "MD5"},
  };
  const auto& digest = kDigests[choice % std::size(kDigests)];
  const absl::string_view challenge =
      absl::StripPrefix(message, kChallengePrefix);
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_get_digestbyname(digest.openssl_name), key.data(),
       static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(challenge.data()),
       challenge.size(), mac, &size);
  return {absl::StrCat(digest.prefix,
                       absl::string_view(reinterpret_cast<char*>(mac), size)),
          choice % std::size(kDigests) >= 4};
}

}  // namespace ipc::rendezvous

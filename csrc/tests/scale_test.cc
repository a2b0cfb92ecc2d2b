// What many replicas need: a choice among them, their deadlines, their sockets and descriptors.
#include <sys/resource.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "../dispatcher.h"
#include "../generate.h"
#include "../replica_choice.h"
#include "check.h"
#include "simulated_engines.h"

namespace {

// The rule in plain form: the smallest share of its credit; among equals the next in turn.
class PlainChoice {
 public:
  explicit PlainChoice(std::size_t num_replicas) : loads(num_replicas), credits(num_replicas) {}

  std::optional<std::size_t> next() {
    std::optional<std::size_t> best;
    for (std::size_t n = 0; n < loads.size(); ++n) {
      const std::size_t i = (turn_ + n) % loads.size();
      if (loads[i] >= credits[i]) continue;
      if (!best || loads[i] * credits[*best] < loads[*best] * credits[i]) best = i;
    }
    if (best) turn_ = (*best + 1) % loads.size();
    return best;
  }

  std::vector<std::size_t> loads, credits;

 private:
  std::size_t turn_ = 0;
};

void the_choice_is_the_rules() {
  std::mt19937 random(1);
  for (const std::size_t num_replicas : {1u, 2u, 7u, 33u}) {
    PlainChoice plain(num_replicas);
    sut::ReplicaChoice choice(num_replicas);
    std::size_t num_chosen = 0;
    for (int round = 0; round < 5'000; ++round) {
      const std::size_t i = random() % num_replicas;
      switch (random() % 4) {
        case 0:
          plain.credits[i] = random() % 6;
          break;
        case 1:
          if (plain.loads[i] > 0) --plain.loads[i];
          break;
        default:
          const auto expected = plain.next();
          CHECK(choice.next() == expected);
          if (!expected) continue;
          ++num_chosen;
          ++plain.loads[*expected];
          choice.set(*expected, plain.loads[*expected], plain.credits[*expected]);
          continue;
      }
      choice.set(i, plain.loads[i], plain.credits[i]);
    }
    CHECK(num_chosen > 500);
  }
}

void a_light_load_takes_turns() {
  sut::ReplicaChoice choice(3);
  CHECK(!choice.next());
  for (std::size_t i = 0; i < 3; ++i) choice.set(i, 0, 1 + i);
  for (std::size_t n = 0; n < 7; ++n) CHECK(choice.next() == n % 3);
}

void the_largest_credit_is_no_overflow() {
  sut::ReplicaChoice choice(2);
  choice.set(0, 3, SIZE_MAX);
  choice.set(1, 2, SIZE_MAX);
  CHECK(choice.next() == 1);
}

void the_oldest_sample_is_found() {
  sut::InFlightTable table(1, 1);
  CHECK(!table.oldest());
  std::mt19937 random(1);
  std::vector<std::pair<sut::RequestId, std::int64_t>> in_flight;  // in order of admission
  for (std::int64_t now = 1; now < 2'000; ++now) {
    if (in_flight.size() < 2 || random() % 2) {
      in_flight.emplace_back(table.take(), now);
      table.find(in_flight.back().first)->admitted_ns = now;
    } else {
      const auto ended = in_flight.begin() + static_cast<std::ptrdiff_t>(random() % in_flight.size());
      table.release(ended->first);
      in_flight.erase(ended);
    }
    CHECK(table.oldest()->admitted_ns == in_flight.front().second);
  }
  for (const auto& [id, admitted] : in_flight) table.release(id);
  CHECK(!table.oldest());
}

rlimit descriptor_limits() {
  rlimit limit{};
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  return limit;
}

// More than the sockets that libzmq allows at first, and than the descriptors that systems do.
void two_hundred_replicas_answer() {
  constexpr int kNumReplicas = 200;
  if (descriptor_limits().rlim_max < 5'000) {
    std::fprintf(stderr, "skipped: the hard limit of file descriptors is too low\n");
    return;
  }
  const rlimit before = descriptor_limits();
  const rlimit low{256, before.rlim_max};
  CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
  const RunKeys keys(kNumReplicas);
  auto links =
      std::make_shared<sut::ReplicaLinks>("127.0.0.1", keys.of_front_end(), kMaxOutputBytes);
  CHECK(descriptor_limits().rlim_cur > 256 && descriptor_limits().rlim_cur < 5'000);
  sut::Dispatcher dispatcher(links, make_store(100), sut::WireLayout{}, kOptions);
  const SimulatedEngines engines(*links, keys, {.num_tokens = kMaxTokens, .max_num_seqs = 4});
  CHECK(dispatcher.wait_ready(120));
  for (int i = 0; i < kNumReplicas; ++i) dispatcher.set_credit(i, 8);
  sut::generate(dispatcher, std::vector<std::size_t>(10 * kNumReplicas, 0),
                sut::Dispatcher::kAnyReplica, 120);
  for (const auto& replica : dispatcher.stats().replicas) {
    CHECK(replica.completed > 0 && replica.in_flight == 0);
  }
  CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
}

void too_many_replicas_are_refused_by_the_limit() {
  const RunKeys keys(1);
  const sut::FrontEndKeys many{keys.front_end.secret_key,
                               std::vector<std::string>(100'000, keys.engines[0].public_key)};
  std::string message;
  try {
    sut::ReplicaLinks("127.0.0.1", many, kMaxOutputBytes);
  } catch (const sut::LimitError& error) {
    CHECK(error.code == EMFILE);
    message = error.what();
  }
  CHECK(message.find("100000 replicas") != std::string::npos);
  CHECK(message.find("LIMIT") != std::string::npos && message.find("EMFILE") != std::string::npos);
}

}  // namespace

int main() {
  the_choice_is_the_rules();
  a_light_load_takes_turns();
  the_largest_credit_is_no_overflow();
  the_oldest_sample_is_found();
  two_hundred_replicas_answer();
  too_many_replicas_are_refused_by_the_limit();
}

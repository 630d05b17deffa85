#include "tools/score_server.h"

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <semaphore>
#include <thread>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/json_config.h"
#include "core/logging.h"
#include "tools/score_queue.h"
#include "tools/score_request.h"

namespace prefusion::tools {
namespace {

constexpr int kNumConnections = 128;  // that are answered at the same time; further ones wait
constexpr time_t kReadSeconds = 15;   // of silence in the middle of a request
constexpr time_t kIdleSeconds = 5;    // between the requests of one connection

std::string json_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void answer(httplib::Response& response, int status, const Json& json) {
  response.status = status;
  response.set_content(json_text(json), "application/json");
}

void answer_error(httplib::Response& response, int status, const std::string& message) {
  if (status == 429 || status == 503) response.set_header("Retry-After", "1");
  answer(response, status, {{"error", message}});
}

const char* status_message(int status) {
  switch (status) {
    case 404: return "no such page; there are GET /health, GET /rewards and POST /score";
    case 413: return "the request is too large (--max-request-mb)";
    default: return "not a request this server understands";
  }
}

// Only a program on this machine that means to talk to this server: a web page that makes a browser send requests
// here names another host.
bool is_local_host(const std::string& host) {
  const std::string name = host.substr(0, host.rfind(':'));
  return host.empty() || name == "127.0.0.1" || name == "localhost";
}

class ScoreServer {
 public:
  ScoreServer(reward_models::Scorer& scorer, size_t batch_size, const ScoreServerOptions& options)
      : scorer_(scorer),
        options_(options),
        limits_{.max_items = static_cast<size_t>(options.max_items),
                .max_picture_bytes = static_cast<size_t>(options.max_request_mb) << 20},
        decoding_(options.workers > 0 ? options.workers
                                      : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))),
        queue_(scorer, {.batch_size = batch_size,
                        .capacity = static_cast<size_t>(options.max_queue),
                        .max_wait_ms = options.max_wait_ms}) {
    if (!options.allowed_folder.empty()) {
      std::error_code error;
      limits_.allowed_folder = std::filesystem::canonical(options.allowed_folder, error);
      check_input(!error && std::filesystem::is_directory(limits_.allowed_folder), "--allow-paths ",
                  options.allowed_folder, ": no such folder");
    }
    configure();
    add_routes();
  }

  void run() {
    int port = options_.port;
    if (port == 0) {
      port = server_.bind_to_any_port("127.0.0.1");
      check_run(port > 0, "no free port on 127.0.0.1");
    } else {
      check_run(server_.bind_to_port("127.0.0.1", port), "port ", port,
                " of 127.0.0.1 cannot be had; another program may listen there (--serve 0 takes a free one)");
    }
    std::printf("listening on http://127.0.0.1:%d\n", port);
    std::fflush(stdout);
    std::atomic<bool> has_ended = false;
    std::thread watcher([&] {
      while (!has_ended && !pending_interrupt()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
      is_stopping_ = true;
      server_.stop();
    });
    const bool was_listening = server_.listen_after_bind();  // returns once every request that was taken is answered
    has_ended = true;
    watcher.join();
    check_run(was_listening || pending_interrupt() != 0, "the server stopped listening");
    log_info("answered ", num_scored_.load(), " pictures in ", num_requests_.load(), " requests");
  }

 private:
  void configure() {
    server_.new_task_queue = [] { return new httplib::ThreadPool(kNumConnections); };
    server_.set_payload_max_length(static_cast<size_t>(options_.max_request_mb) << 20);
    server_.set_read_timeout(kReadSeconds);
    server_.set_write_timeout(kReadSeconds);
    server_.set_keep_alive_timeout(kIdleSeconds);
    server_.set_keep_alive_max_count(1'000'000);
    server_.set_tcp_nodelay(true);
    server_.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      return is_refused(request, response) ? httplib::Server::HandlerResponse::Handled
                                           : httplib::Server::HandlerResponse::Unhandled;
    });
    server_.set_error_handler([](const httplib::Request&, httplib::Response& response) {
      if (response.body.empty()) answer_error(response, response.status, status_message(response.status));
    });
    server_.set_exception_handler([](const httplib::Request&, httplib::Response& response, std::exception_ptr) {
      answer_error(response, 500, "the request failed");
    });
  }

  // Before the body is read.
  bool is_refused(const httplib::Request& request, httplib::Response& response) const {
    if (is_stopping_) {
      answer_error(response, 503, "the server is stopping");
    } else if (!is_local_host(request.get_header_value("Host"))) {
      answer_error(response, 403, "this server answers to 127.0.0.1 and localhost only");
    } else if (request.has_header("Content-Encoding") || request.has_header("Transfer-Encoding")) {
      answer_error(response, 415,
                   "compressed and chunked requests are not taken");  // their size cannot be limited beforehand
    } else if (request.method == "POST" && !request.has_header("Content-Length")) {
      answer_error(response, 411, "a request needs a Content-Length");
    } else {
      return false;
    }
    response.set_header("Connection", "close");
    return true;
  }

  void add_routes() {
    server_.Get("/health", [this](const httplib::Request&, httplib::Response& response) {
      answer(response, 200, {{"status", "ok"}, {"rewards", scorer_.columns()}});
    });
    server_.Get("/rewards", [this](const httplib::Request&, httplib::Response& response) {
      answer(response, 200, {{"rewards", scorer_.columns()}});
    });
    server_.Post("/score", [this](const httplib::Request& request, httplib::Response& response) {
      try {
        score(request, response);
      } catch (const RequestError& error) {
        answer_error(response, error.status(), error.what());
      } catch (const Error& error) {
        answer_error(response, 500, error.what());
      } catch (const std::bad_alloc&) {
        answer_error(response, 503, "out of memory; ask for less at a time");
      }
    });
  }

  // multipart/form-data: files `image`, and as many texts `prompt` or one for all.
  std::vector<RequestItem> multipart_items(const httplib::Request& request) const {
    const auto [first, last] = request.files.equal_range("image");
    const auto [first_prompt, last_prompt] = request.files.equal_range("prompt");
    std::vector<RequestItem> items;
    for (auto file = first; file != last; ++file) items.push_back({.encoded = file->second.content});
    if (items.empty()) throw RequestError(400, "the form has no file 'image'");
    if (items.size() > limits_.max_items) {
      throw RequestError(413, concat(items.size(), " items, at most ", limits_.max_items, " are taken (--max-items)"));
    }
    const auto num_prompts = static_cast<size_t>(std::distance(first_prompt, last_prompt));
    if (num_prompts > 1 && num_prompts != items.size()) {
      throw RequestError(400, concat("the form has ", items.size(), " files 'image' but ", num_prompts, " 'prompt'"));
    }
    auto prompt = first_prompt;
    for (RequestItem& item : items) {
      if (num_prompts == 0) break;
      item.prompt = prompt->second.content;
      if (num_prompts > 1) ++prompt;
    }
    return items;
  }

  std::vector<ScoreJob> prepare(std::vector<RequestItem> items) {
    const images::ImageLimits limits{.max_pixels = int64_t{1'000'000} * options_.max_megapixels};
    thread_local bool is_ready = false;
    if (!is_ready) use_one_thread_here();
    is_ready = true;
    std::vector<ScoreJob> jobs;
    for (RequestItem& item : items) {
      ScoreJob job{.prompt = std::move(item.prompt)};
      decoding_.acquire();  // so many decoded pictures at a time, whatever the number of connections
      try {
        prepare_job(item.encoded, scorer_, limits, job);
      } catch (...) {
        decoding_.release();
        throw;
      }
      decoding_.release();
      item.encoded = {};
      jobs.push_back(std::move(job));
    }
    return jobs;
  }

  void score(const httplib::Request& request, httplib::Response& response) {
    std::vector<ScoreJob> jobs = prepare(request.is_multipart_form_data() ? multipart_items(request)
                                                                          : parse_score_request(request.body, limits_));
    auto future = queue_.submit(std::move(jobs));
    if (!future.valid()) {
      throw RequestError(429, concat(options_.max_queue, " pictures are waiting already (--max-queue); try again"));
    }
    const std::vector<ScoreRow> rows = future.get();
    Json results = Json::array();
    size_t num_bad = 0;
    for (const ScoreRow& row : rows) {
      results.push_back(result_of(row));
      if (!row.error.empty()) ++num_bad;
    }
    num_scored_ += static_cast<int64_t>(rows.size());
    ++num_requests_;
    Json body = {{"results", std::move(results)}};
    if (num_bad == rows.size()) body["error"] = rows.front().error;
    answer(response, num_bad == rows.size() ? 400 : 200, body);
  }

  Json result_of(const ScoreRow& row) const {
    Json result = Json::object();
    for (size_t i = 0; i < row.scores.size(); ++i) {
      result[scorer_.columns()[i]] = row.scores[i] ? Json(std::stod(score_text(*row.scores[i]))) : Json();
    }
    if (!row.error.empty()) result["error"] = row.error;
    return result;
  }

  reward_models::Scorer& scorer_;
  ScoreServerOptions options_;
  RequestLimits limits_;
  std::counting_semaphore<> decoding_;
  ScoreQueue queue_;
  httplib::Server server_;
  std::atomic<bool> is_stopping_ = false;
  std::atomic<int64_t> num_scored_ = 0;
  std::atomic<int64_t> num_requests_ = 0;
};

}  // namespace

void serve_scores(const std::vector<reward_models::RewardSpec>& rewards, const reward_models::ScorerOptions& scoring,
                  const ScoreServerOptions& options) {
  reward_models::Scorer scorer(rewards, scoring);
  ScoreServer(scorer, static_cast<size_t>(scoring.batch_size), options).run();
}

}  // namespace prefusion::tools

// Does what cases.json lists with Apache's C++ library and generated code; prints what it saw, one JSON object a line.
//
//     client CASES.json HOST:PORT

#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <thrift/TApplicationException.h>
#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/protocol/TCompactProtocol.h>
#include <thrift/protocol/TMultiplexedProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include "Chat.h"
#include "Health.h"
#include "Inference.h"
#include "Misreader.h"
#include "Stranger.h"

using apache::thrift::TApplicationException;
using apache::thrift::TConfiguration;
using apache::thrift::protocol::TMultiplexedProtocol;
using apache::thrift::protocol::TProtocol;
using apache::thrift::transport::TTransport;
using apache::thrift::transport::TTransportException;
using nlohmann::json;
namespace protocols = apache::thrift::protocol;
namespace transports = apache::thrift::transport;
using outboard::base::Base;
using outboard::chat::ChatClient;
using outboard::fault::Fault;
using outboard::health::HealthClient;
using outboard::inference::InferenceClient;

static std::string random_bytes() {
  static std::random_device device;
  std::string bytes;
  for (int i = 0; i < 16; i++) bytes.push_back(static_cast<char>(device()));
  return bytes;
}

static std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

static std::string to_hex(const std::string& bytes) {
  static const char* digits = "0123456789abcdef";
  std::string hex;
  for (unsigned char byte : bytes) hex.append({digits[byte >> 4], digits[byte & 15]});
  return hex;
}

static std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

class Client {
 public:
  Client(const std::string& address, const std::string& protocol, const std::string& transport, const json& given)
      : given_(given), multiplexed_(transport == "multiplexed") {
    auto colon = address.rfind(':');
    auto socket = std::make_shared<transports::TSocket>(address.substr(0, colon), std::stoi(address.substr(colon + 1)));
    int patience = given.value("patience_ms", 30000);
    socket->setConnTimeout(5000);
    socket->setSendTimeout(patience);
    socket->setRecvTimeout(patience);
    if (transport == "buffered") {
      transport_ = std::make_shared<transports::TBufferedTransport>(socket);
    } else {
      transport_ = std::make_shared<transports::TFramedTransport>(socket);
    }
    if (protocol == "compact") {
      protocol_ = std::make_shared<protocols::TCompactProtocol>(transport_);
    } else {
      protocol_ = std::make_shared<protocols::TBinaryProtocol>(transport_);
    }
    transport_->open();
  }
  ~Client() { transport_->close(); }

  json outcome() {
    try {
      json seen = make();
      if (seen.is_null()) return {{"outcome", "oneway"}};
      seen["outcome"] = "reply";
      return seen;
    } catch (const Fault& fault) {
      json seen = {{"outcome", "fault"}, {"code", static_cast<int>(fault.code)}, {"message", fault.message}};
      if (fault.__isset.param) seen["param"] = fault.param;
      if (fault.__isset.request_id) seen["request_id"] = fault.request_id;
      return seen;
    } catch (const TApplicationException& error) {
      return {{"outcome", "application"}, {"type", static_cast<int>(error.getType())}, {"message", error.what()}};
    } catch (const TTransportException& error) {
      bool timeout = error.getType() == TTransportException::TIMED_OUT;
      return {{"outcome", timeout ? "timeout" : "transport"}, {"message", error.what()}};
    }
  }

  json goes_on() {
    try {
      outboard::health::CheckReply reply;
      HealthClient(as("Health")).check(reply, {});
      return reply.status == outboard::health::ServingStatus::SERVING;
    } catch (const std::exception& error) {
      return error.what();
    }
  }

 private:
  std::shared_ptr<TProtocol> as(const std::string& service) {
    if (!multiplexed_) return protocol_;
    return std::make_shared<TMultiplexedProtocol>(protocol_, service);
  }

  std::string text(const char* key) { return given_.value(key, std::string()); }

  Base base() {
    Base base;
    base.__set_request_id("conformance-" + text("name"));
    base.__set_caller("cpp");
    base.__set_timeout_ms(given_.value("timeout_ms", 20000));
    return base;
  }

  outboard::inference::InferRequest infer_request() {
    const json& input = given_["input"];
    outboard::inference::Tensor tensor;
    tensor.__set_name(input["name"]);
    tensor.__set_data_type(static_cast<outboard::inference::DataType::type>(input["type"].get<int>()));
    tensor.__set_shape(input["shape"].get<std::vector<int64_t>>());
    if (input.contains("hex")) {
      tensor.__set_data(from_hex(input["hex"]));
    } else if (input.contains("zeros")) {
      tensor.__set_data(std::string(input["zeros"].get<size_t>(), '\0'));
    } else {
      tensor.__set_strings(input["strings"].get<std::vector<std::string>>());
    }
    outboard::inference::InferRequest request;
    request.__set_base(base());
    request.__set_model(text("model"));
    request.__set_inputs({tensor});
    return request;
  }

  static json inferred(const outboard::inference::InferReply& reply) {
    const auto& output = reply.outputs.at(0);
    json seen = {{"outputs", reply.outputs.size()}, {"type", static_cast<int>(output.data_type)}, {"shape", output.shape},
                 {"request_id", reply.request_id}};
    if (output.__isset.strings) seen["strings"] = output.strings;
    if (output.__isset.data) {
      seen["bytes"] = output.data.size();
      if (output.data.size() <= 64) seen["hex"] = to_hex(output.data);
    }
    return seen;
  }

  outboard::chat::ChatRequest chat() {
    outboard::chat::Message message;
    message.__set_role("user");
    message.__set_content(text("message"));
    outboard::chat::Sampling sampling;
    sampling.__set_temperature(0);
    outboard::chat::ChatRequest request;
    request.__set_base(base());
    request.__set_model(text("model"));
    request.__set_messages({message});
    request.__set_max_tokens(given_["max_tokens"]);
    request.__set_sampling(sampling);
    return request;
  }

  outboard::chat::StartRequest start() {
    outboard::chat::StartRequest request;
    request.__set_base(base());
    request.__set_stream_key(random_bytes());
    request.__set_chat(chat());
    return request;
  }

  static outboard::chat::NextRequest next(const std::string& stream, int64_t from) {
    outboard::chat::NextRequest request;
    request.__set_stream_id(stream);
    request.__set_from_piece(from);
    request.__set_wait_ms(10000);
    return request;
  }

  /// What was seen; null when the call was oneway.
  json make() {
    const std::string way = text("way");
    if (way == "check") {
      outboard::health::CheckRequest request;
      request.__set_base(base());
      if (given_.contains("model")) request.__set_model(text("model"));
      outboard::health::CheckReply reply;
      HealthClient(as(given_.value("service", std::string("Health")))).check(reply, request);
      return {{"status", static_cast<int>(reply.status)}, {"live", reply.live}, {"models", reply.models.size()}};
    }
    if (way == "models") {
      outboard::inference::ModelsRequest request;
      request.__set_base(base());
      if (given_.contains("model")) request.__set_model(text("model"));
      outboard::inference::ModelsReply reply;
      InferenceClient(as("Inference")).models(reply, request);
      std::set<std::string> names;
      for (const auto& model : reply.models) names.insert(model.name);
      return {{"names", names}, {"labels", reply.models.at(0).labels.size()}, {"request_id", reply.request_id}};
    }
    if (way == "classify") {
      outboard::inference::ClassifyRequest request;
      request.__set_base(base());
      request.__set_model(text("model"));
      std::vector<std::string> images;
      for (const auto& path : given_["pictures"]) images.push_back(content(path));
      request.__set_images(images);
      if (given_.contains("top_k")) request.__set_top_k(given_["top_k"]);
      if (given_.contains("preview_px")) request.__set_preview_px(given_["preview_px"]);
      outboard::inference::ClassifyReply reply;
      InferenceClient(as("Inference")).classify(reply, request);
      const auto& first = reply.results.at(0);
      return {{"label", first.labels.at(0).label}, {"labels", first.labels.size()}, {"results", reply.results.size()},
              {"format", first.format}, {"size", {first.width, first.height}}, {"preview", bool(first.__isset.preview)},
              {"request_id", reply.request_id}};
    }
    if (way == "infer") {
      outboard::inference::InferReply reply;
      InferenceClient(as("Inference")).infer(reply, infer_request());
      return inferred(reply);
    }
    if (way == "infer-cancelled") {
      InferenceClient client(as("Inference"));
      auto request = infer_request();
      outboard::inference::CancelRequest cancel;
      cancel.__set_call_id(random_bytes());
      request.base.__set_call_id(cancel.call_id);
      client.send_infer(request);
      client.cancel(cancel);
      outboard::inference::InferReply reply;
      client.recv_infer(reply);
      return inferred(reply);
    }
    if (way == "embed") {
      outboard::inference::EmbedRequest request;
      request.__set_base(base());
      request.__set_model(text("model"));
      auto texts = given_["texts"].get<std::vector<std::string>>();
      while (texts.size() < given_.value("repeat", size_t{1})) texts.push_back(texts[0]);
      request.__set_texts(texts);
      outboard::inference::EmbedReply reply;
      InferenceClient(as("Inference")).embed(reply, request);
      return {{"dimensions", reply.dimensions}, {"bytes", reply.vectors.size()}, {"texts", reply.token_counts.size()},
              {"tokens", reply.token_counts}, {"request_id", reply.request_id}};
    }
    if (way == "cancel") {
      outboard::inference::CancelRequest request;
      request.__set_call_id(std::string(16, '\0'));
      InferenceClient(as("Inference")).cancel(request);
      return nullptr;
    }
    if (way == "complete") {
      outboard::chat::ChatReply reply;
      ChatClient(as("Chat")).complete(reply, chat());
      const auto& first = reply.choices.at(0);
      return {{"choices", reply.choices.size()}, {"text", first.text}, {"finish", static_cast<int>(first.finish)},
              {"completion_tokens", reply.usage.completion_tokens}, {"request_id", reply.request_id}};
    }
    if (way == "stream") return stream();
    if (way == "stop") {
      ChatClient client(as("Chat"));
      outboard::chat::StartReply started;
      client.start(started, start());
      outboard::chat::StopRequest stop;
      stop.__set_stream_id(started.stream_id);
      outboard::chat::StopReply stopped;
      client.stop(stopped, stop);
      outboard::chat::NextReply reply;
      client.next_pieces(reply, next(started.stream_id, 0));
      return {{"ended", reply.ended}};
    }
    if (way == "next") {
      auto request = next(text("stream"), 0);
      request.__set_base(base());
      outboard::chat::NextReply reply;
      ChatClient(as("Chat")).next_pieces(reply, request);
      return json::object();
    }
    if (way == "frobnicate") {
      outboard::stranger::Anything reply;
      outboard::stranger::StrangerClient(as("Stranger")).frobnicate(reply, {});
      return json::object();
    }
    if (way == "misread") {
      outboard::stranger::Misunderstood request;
      request.__set_base(base());
      request.__set_model(7);
      outboard::health::CheckReply reply;
      outboard::stranger::MisreaderClient(as("Health")).check(reply, request);
      return json::object();
    }
    throw std::runtime_error("no way is called " + way);
  }

  json stream() {
    ChatClient client(as("Chat"));
    auto request = start();
    request.__set_bound(true);
    outboard::chat::StartReply started, again;
    client.start(started, request);
    client.start(again, request);
    json seen = {{"again", again.stream_id == started.stream_id ? "same" : "another"}};
    std::string said;
    bool gapless = true;
    int64_t number = 0;
    for (bool ended = false; !ended;) {
      outboard::chat::NextReply reply;
      client.next_pieces(reply, next(started.stream_id, number));
      for (const auto& piece : reply.pieces) {
        gapless = gapless && piece.number == number;
        number++;
        said += piece.text;
        if (piece.__isset.finish) seen["finish"] = static_cast<int>(piece.finish);
        if (piece.__isset.usage) seen["completion_tokens"] = piece.usage.completion_tokens;
      }
      ended = reply.ended;
    }
    seen["text"] = said;
    seen["gapless"] = gapless;
    return seen;
  }

  const json& given_;
  bool multiplexed_;
  std::shared_ptr<TTransport> transport_;
  std::shared_ptr<TProtocol> protocol_;
};

int main(int, char** arguments) {
  const json plan = json::parse(content(arguments[1]));
  const json usual = {"framed", "multiplexed"};
  for (const auto& me : plan["clients"]) {
    if (me["name"] != "cpp") continue;
    for (const std::string protocol : me["protocols"]) {
      for (const std::string transport : me["transports"]) {
        for (const auto& given : plan["cases"]) {
          const json over = given.value("transports", usual);
          if (std::find(over.begin(), over.end(), transport) == over.end()) continue;
          Client client(arguments[2], protocol, transport, given);
          json seen = client.outcome();
          if (!given.contains("last")) seen["goes_on"] = client.goes_on();
          seen["protocol"] = protocol;
          seen["transport"] = transport;
          seen["case"] = given["name"];
          std::cout << seen.dump() << std::endl;
        }
      }
    }
  }
}

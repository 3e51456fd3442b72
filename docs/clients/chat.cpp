// Streams a chat with generated code and Apache's C++ library, and nothing else.
//
//     mkdir gen && thrift -r --gen cpp:no_skeleton -out gen idl/chat.thrift
//     g++ -std=c++17 -Igen -o chat docs/clients/chat.cpp gen/*.cpp -lthrift
//     ./chat 127.0.0.1:9090 smollm2-135m-instruct "What is a rainbow?"
//
// The library's version must be that of the compiler: libthrift-dev 0.17.0 of Debian 12, which also wants libboost-dev.

#include <iostream>
#include <memory>
#include <random>
#include <string>

#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include "Chat.h"

namespace chat = outboard::chat;
using apache::thrift::protocol::TBinaryProtocol;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TSocket;
using outboard::fault::Fault;

static const int wait_ms = 10000;

static std::string random_hex(int digits) {
  static std::random_device device;
  std::string text;
  for (int i = 0; i < digits; i++) text.push_back("0123456789abcdef"[device() % 16]);
  return text;
}

/// Prints one answer as it comes.
static void stream(chat::ChatClient& client, const std::string& model, const std::string& question) {
  outboard::base::Base base;
  // The id stands in the server's log; a service hands on the one that it was called with.
  base.__set_request_id("cpp-" + random_hex(16));
  base.__set_caller("docs");
  base.__set_timeout_ms(120000);
  chat::Message message;
  message.__set_role("user");
  message.__set_content(question);
  chat::StartRequest start;
  start.__set_base(base);
  start.__set_stream_key(random_hex(16));
  start.chat.__set_model(model);
  start.chat.__set_messages({message});
  // Bound: when this program ends in whatever way, so does the answer.
  start.__set_bound(true);
  chat::StartReply started;
  client.start(started, start);

  chat::NextRequest next;
  next.__set_stream_id(started.stream_id);
  next.__set_wait_ms(wait_ms);
  next.__set_from_piece(0);
  for (bool ended = false; !ended;) {
    chat::NextReply reply;
    client.next_pieces(reply, next);
    for (const auto& piece : reply.pieces) {
      next.__set_from_piece(piece.number + 1);
      if (piece.__isset.error) {
        Fault broken;
        broken.__set_code(piece.error);
        broken.__set_message(piece.error_message);
        broken.__set_request_id(base.request_id);
        throw broken;
      }
      std::cout << piece.text << std::flush;
      if (piece.__isset.usage) {
        std::cerr << "\n[" << piece.finish << ", " << piece.usage.prompt_tokens << " + " << piece.usage.completion_tokens
                  << " tokens]\n";
      }
    }
    ended = reply.ended;
  }
}

int main(int count, char** arguments) {
  if (count != 4) {
    std::cerr << "usage: chat HOST:PORT MODEL QUESTION\n";
    return 2;
  }
  const std::string address = arguments[1];
  const auto colon = address.rfind(':');
  auto socket = std::make_shared<TSocket>(address.substr(0, colon), std::stoi(address.substr(colon + 1)));
  socket->setConnTimeout(5000);
  // Longer than a call waits for something new. After a timeout here the connection must be closed.
  socket->setRecvTimeout(wait_ms + 5000);
  auto transport = std::make_shared<TFramedTransport>(socket);
  try {
    transport->open();
    chat::ChatClient client(std::make_shared<TBinaryProtocol>(transport));
    stream(client, arguments[2], arguments[3]);
    std::cout << std::endl;
  } catch (const Fault& fault) {
    std::cerr << fault.code << ": " << fault.message << " (request " << fault.request_id << ")\n";
    return 1;
  } catch (const apache::thrift::TException& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}

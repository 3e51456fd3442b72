//! The real gateway, alone and behind the real nginx, before a server that does what the test says.

mod chat_page;
mod client;
mod embeddings;
mod gateway;
mod history;
mod http;
mod keys;
mod nginx;
mod openai;
mod server;
mod server_key;
mod talker;

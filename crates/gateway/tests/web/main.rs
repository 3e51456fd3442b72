//! The real gateway, alone and behind the real nginx, before a server that does what the test says.

mod bodies;
mod chat_page;
mod client;
mod embeddings;
mod gateway;
mod history;
mod keys;
mod nginx;
mod openai;
mod pages;
mod process;
mod requests;
mod server;
mod server_key;
mod talker;

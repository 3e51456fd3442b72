// Streams a chat with generated code and Apache's Go library, and nothing else.
//
//	mkdir chat && cp docs/clients/chat.go chat/main.go && cd chat
//	go mod init chat && go get github.com/apache/thrift@v0.17.0
//	thrift -r --gen go:package_prefix=chat/ -out . ../idl/chat.thrift
//	go run . 127.0.0.1:9090 smollm2-135m-instruct "What is a rainbow?"
//
// The library's version must be that of the compiler. The answer is printed as it comes.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"chat/outboard/base"
	"chat/outboard/chat"
	"chat/outboard/fault"
)

const waitMs = int32(10_000)

func connect(address string) (*chat.ChatClient, thrift.TTransport, error) {
	config := &thrift.TConfiguration{
		ConnectTimeout: 5 * time.Second,
		// Longer than a call waits for something new. After a timeout here the connection must be closed.
		SocketTimeout: 15 * time.Second,
	}
	transport := thrift.NewTFramedTransportConf(thrift.NewTSocketConf(address, config), config)
	if err := transport.Open(); err != nil {
		return nil, nil, err
	}
	protocol := thrift.NewTBinaryProtocolConf(transport, config)
	return chat.NewChatClient(thrift.NewTStandardClient(protocol, protocol)), transport, nil
}

// stream calls show with each piece of one answer as it comes.
func stream(ctx context.Context, client *chat.ChatClient, model, question string, show func(*chat.Piece)) error {
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	// Bound: when this program ends in whatever way, so does the answer.
	timeout, bound, wait := int32(120_000), true, waitMs
	// The id stands in the server's log; a service hands on the one that it was called with.
	id, caller := "go-"+hex.EncodeToString(key[:8]), "docs"
	started, err := client.Start(ctx, &chat.StartRequest{
		Base:      &base.Base{RequestID: &id, Caller: &caller, TimeoutMs: &timeout},
		StreamKey: key,
		Chat: &chat.ChatRequest{
			Model:    model,
			Messages: []*chat.Message{{Role: "user", Content: question}},
		},
		Bound: &bound,
	})
	if err != nil {
		return err
	}
	for next := int64(0); ; {
		reply, err := client.NextPieces(ctx, &chat.NextRequest{StreamID: started.StreamID, FromPiece: next, WaitMs: &wait})
		if err != nil {
			return err
		}
		for _, piece := range reply.Pieces {
			next = piece.Number + 1
			if piece.Error != nil {
				return &fault.Fault{Code: piece.GetError(), Message: piece.GetErrorMessage(), RequestID: &id}
			}
			show(piece)
		}
		if reply.Ended {
			return nil
		}
	}
}

func run() error {
	if len(os.Args) != 4 {
		return errors.New("usage: chat HOST:PORT MODEL QUESTION")
	}
	client, transport, err := connect(os.Args[1])
	if err != nil {
		return err
	}
	defer transport.Close()
	return stream(context.Background(), client, os.Args[2], os.Args[3], func(piece *chat.Piece) {
		fmt.Print(piece.Text)
		if piece.Usage != nil {
			usage, first := piece.Usage, time.Duration(piece.Timing.FirstTokenUs)*time.Microsecond
			fmt.Fprintf(os.Stderr, "\n[%s, %d + %d tokens, the first after %s]\n",
				piece.GetFinish(), usage.PromptTokens, usage.CompletionTokens, first.Round(time.Millisecond))
		}
	})
}

func main() {
	if err := run(); err != nil {
		var refused *fault.Fault
		if errors.As(err, &refused) {
			err = fmt.Errorf("%s (request %s)", refused.Message, refused.GetRequestID())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

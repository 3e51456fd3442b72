// Does what cases.json lists with Apache's Go library and generated code; prints what it saw, one JSON object a line.
//
//	client CASES.json HOST:PORT
//
// The generated packages lie beside this file under outboard/ when it is built: scripts/conformance puts them there.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"conformance/outboard/base"
	"conformance/outboard/chat"
	"conformance/outboard/fault"
	"conformance/outboard/health"
	"conformance/outboard/inference"
	"conformance/outboard/stranger"
)

type input struct {
	Name    string   `json:"name"`
	Type    int      `json:"type"`
	Shape   []int64  `json:"shape"`
	Hex     *string  `json:"hex"`
	Zeros   int      `json:"zeros"`
	Strings []string `json:"strings"`
}

type testCase struct {
	Name       string   `json:"name"`
	Way        string   `json:"way"`
	Service    string   `json:"service"`
	Model      *string  `json:"model"`
	Pictures   []string `json:"pictures"`
	TopK       *int32   `json:"top_k"`
	PreviewPx  *int32   `json:"preview_px"`
	Input      *input   `json:"input"`
	Texts      []string `json:"texts"`
	Repeat     int      `json:"repeat"`
	Message    string   `json:"message"`
	MaxTokens  int32    `json:"max_tokens"`
	Stream     string   `json:"stream"`
	TimeoutMs  int32    `json:"timeout_ms"`
	PatienceMs int      `json:"patience_ms"`
	Transports []string `json:"transports"`
	Last       bool     `json:"last"`
}

type plan struct {
	Clients []struct {
		Name       string   `json:"name"`
		Protocols  []string `json:"protocols"`
		Transports []string `json:"transports"`
	} `json:"clients"`
	Cases []testCase `json:"cases"`
}

type facts map[string]interface{}

type connection struct {
	transport   thrift.TTransport
	protocol    thrift.TProtocol
	multiplexed bool
}

func dial(address, protocol, transport string, patienceMs int) (*connection, error) {
	config := &thrift.TConfiguration{
		ConnectTimeout: 5 * time.Second,
		SocketTimeout:  time.Duration(patienceMs) * time.Millisecond,
	}
	var layer thrift.TTransport = thrift.NewTSocketConf(address, config)
	if transport == "buffered" {
		layer = thrift.NewTBufferedTransport(layer, 4096)
	} else {
		layer = thrift.NewTFramedTransportConf(layer, config)
	}
	if err := layer.Open(); err != nil {
		return nil, err
	}
	var spoken thrift.TProtocol = thrift.NewTBinaryProtocolConf(layer, config)
	if protocol == "compact" {
		spoken = thrift.NewTCompactProtocolConf(layer, config)
	}
	return &connection{layer, spoken, transport == "multiplexed"}, nil
}

func (c *connection) client(service string) *thrift.TStandardClient {
	if c.multiplexed {
		return thrift.NewTStandardClient(c.protocol, thrift.NewTMultiplexedProtocol(c.protocol, service))
	}
	return thrift.NewTStandardClient(c.protocol, c.protocol)
}

func (t *testCase) base() *base.Base {
	id, caller, timeout := "conformance-"+t.Name, "go", t.TimeoutMs
	if timeout == 0 {
		timeout = 20_000
	}
	return &base.Base{RequestID: &id, Caller: &caller, TimeoutMs: &timeout}
}

func (t *testCase) model() string {
	if t.Model == nil {
		return ""
	}
	return *t.Model
}

func (t *testCase) inferRequest() (*inference.InferRequest, error) {
	given := t.Input
	tensor := &inference.Tensor{Name: given.Name, DataType: inference.DataType(given.Type), Shape: given.Shape, Strings: given.Strings}
	if given.Hex != nil {
		data, err := hex.DecodeString(*given.Hex)
		if err != nil {
			return nil, err
		}
		tensor.Data = data
	} else if given.Zeros > 0 {
		tensor.Data = make([]byte, given.Zeros)
	}
	return &inference.InferRequest{Base: t.base(), Model: t.model(), Inputs: []*inference.Tensor{tensor}}, nil
}

func inferred(reply *inference.InferReply) facts {
	output := reply.Outputs[0]
	seen := facts{"outputs": len(reply.Outputs), "type": int(output.DataType), "shape": output.Shape, "request_id": reply.RequestID}
	if output.Strings != nil {
		seen["strings"] = output.Strings
	}
	if output.Data != nil {
		seen["bytes"] = len(output.Data)
		if len(output.Data) <= 64 {
			seen["hex"] = hex.EncodeToString(output.Data)
		}
	}
	return seen
}

func (t *testCase) chat() *chat.ChatRequest {
	temperature := 0.0
	return &chat.ChatRequest{
		Base: t.base(), Model: t.model(), Messages: []*chat.Message{{Role: "user", Content: t.Message}},
		MaxTokens: &t.MaxTokens, Sampling: &chat.Sampling{Temperature: &temperature},
	}
}

func random() []byte {
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		panic(err)
	}
	return key
}

var wait = int32(10_000)

// do makes the case's calls. No facts and no error: the call was oneway.
func (c *connection) do(ctx context.Context, t *testCase) (facts, error) {
	switch t.Way {
	case "check":
		service := t.Service
		if service == "" {
			service = "Health"
		}
		reply, err := health.NewHealthClient(c.client(service)).Check(ctx, &health.CheckRequest{Base: t.base(), Model: t.Model})
		if err != nil {
			return nil, err
		}
		return facts{"status": int(reply.Status), "live": reply.Live, "models": len(reply.Models)}, nil
	case "models":
		reply, err := inference.NewInferenceClient(c.client("Inference")).Models(ctx, &inference.ModelsRequest{Base: t.base(), Model: t.Model})
		if err != nil {
			return nil, err
		}
		names := []string{}
		for _, model := range reply.Models {
			names = append(names, model.Name)
		}
		sort.Strings(names)
		return facts{"names": names, "labels": len(reply.Models[0].Labels), "request_id": reply.RequestID}, nil
	case "classify":
		var pictures [][]byte
		for _, path := range t.Pictures {
			picture, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			pictures = append(pictures, picture)
		}
		reply, err := inference.NewInferenceClient(c.client("Inference")).Classify(ctx, &inference.ClassifyRequest{
			Base: t.base(), Model: t.model(), Images: pictures, TopK: t.TopK, PreviewPx: t.PreviewPx})
		if err != nil {
			return nil, err
		}
		first := reply.Results[0]
		return facts{"label": first.Labels[0].Label, "labels": len(first.Labels), "results": len(reply.Results), "format": first.Format,
			"size": []int32{first.Width, first.Height}, "preview": first.Preview != nil, "request_id": reply.RequestID}, nil
	case "infer":
		request, err := t.inferRequest()
		if err != nil {
			return nil, err
		}
		reply, err := inference.NewInferenceClient(c.client("Inference")).Infer(ctx, request)
		if err != nil {
			return nil, err
		}
		return inferred(reply), nil
	case "infer-cancelled":
		return c.cancelled(ctx, t)
	case "embed":
		texts := t.Texts
		for len(texts) < t.Repeat {
			texts = append(texts, t.Texts[0])
		}
		reply, err := inference.NewInferenceClient(c.client("Inference")).Embed(ctx, &inference.EmbedRequest{Base: t.base(), Model: t.model(), Texts: texts})
		if err != nil {
			return nil, err
		}
		return facts{"dimensions": reply.Dimensions, "bytes": len(reply.Vectors), "texts": len(reply.TokenCounts),
			"tokens": reply.TokenCounts, "request_id": reply.RequestID}, nil
	case "cancel":
		return nil, inference.NewInferenceClient(c.client("Inference")).Cancel(ctx, &inference.CancelRequest{CallID: make([]byte, 16)})
	case "complete":
		reply, err := chat.NewChatClient(c.client("Chat")).Complete(ctx, t.chat())
		if err != nil {
			return nil, err
		}
		first := reply.Choices[0]
		return facts{"choices": len(reply.Choices), "text": first.Text, "finish": int(first.Finish),
			"completion_tokens": reply.Usage.CompletionTokens, "request_id": reply.RequestID}, nil
	case "stream":
		return c.stream(ctx, t)
	case "stop":
		client := chat.NewChatClient(c.client("Chat"))
		started, err := client.Start(ctx, &chat.StartRequest{Base: t.base(), StreamKey: random(), Chat: t.chat()})
		if err != nil {
			return nil, err
		}
		if _, err := client.Stop(ctx, &chat.StopRequest{StreamID: started.StreamID}); err != nil {
			return nil, err
		}
		reply, err := client.NextPieces(ctx, &chat.NextRequest{StreamID: started.StreamID, WaitMs: &wait})
		if err != nil {
			return nil, err
		}
		return facts{"ended": reply.Ended}, nil
	case "next":
		_, err := chat.NewChatClient(c.client("Chat")).NextPieces(ctx, &chat.NextRequest{Base: t.base(), StreamID: t.Stream})
		return facts{}, err
	case "frobnicate":
		_, err := stranger.NewStrangerClient(c.client("Stranger")).Frobnicate(ctx, &stranger.Anything{})
		return facts{}, err
	case "misread":
		model := int64(7)
		_, err := stranger.NewMisreaderClient(c.client("Health")).Check(ctx, &stranger.Misunderstood{Base: t.base(), Model: &model})
		return facts{}, err
	}
	return nil, fmt.Errorf("no way is called %s", t.Way)
}

// cancelled sends a call and its cancel before it reads: both halves of a client are public for that.
func (c *connection) cancelled(ctx context.Context, t *testCase) (facts, error) {
	request, err := t.inferRequest()
	if err != nil {
		return nil, err
	}
	request.Base.CallID = random()
	client := c.client("Inference")
	out := c.protocol
	if c.multiplexed {
		out = thrift.NewTMultiplexedProtocol(c.protocol, "Inference")
	}
	const number = 7
	if err := client.Send(ctx, out, number, "infer", &inference.InferenceInferArgs{Request: request}); err != nil {
		return nil, err
	}
	if err := inference.NewInferenceClient(client).Cancel(ctx, &inference.CancelRequest{CallID: request.Base.CallID}); err != nil {
		return nil, err
	}
	var result inference.InferenceInferResult
	if err := client.Recv(ctx, c.protocol, number, "infer", &result); err != nil {
		return nil, err
	}
	if result.Fault != nil {
		return nil, result.Fault
	}
	return inferred(result.Success), nil
}

func (c *connection) stream(ctx context.Context, t *testCase) (facts, error) {
	client, bound := chat.NewChatClient(c.client("Chat")), true
	request := &chat.StartRequest{Base: t.base(), StreamKey: random(), Chat: t.chat(), Bound: &bound}
	started, err := client.Start(ctx, request)
	if err != nil {
		return nil, err
	}
	again, err := client.Start(ctx, request)
	if err != nil {
		return nil, err
	}
	seen := facts{"again": "another"}
	if again.StreamID == started.StreamID {
		seen["again"] = "same"
	}
	text, gapless, number := strings.Builder{}, true, int64(0)
	for ended := false; !ended; {
		reply, err := client.NextPieces(ctx, &chat.NextRequest{StreamID: started.StreamID, FromPiece: number, WaitMs: &wait})
		if err != nil {
			return nil, err
		}
		for _, piece := range reply.Pieces {
			gapless = gapless && piece.Number == number
			number++
			text.WriteString(piece.Text)
			if piece.Finish != nil {
				seen["finish"] = int(*piece.Finish)
			}
			if piece.Usage != nil {
				seen["completion_tokens"] = piece.Usage.CompletionTokens
			}
		}
		ended = reply.Ended
	}
	seen["text"], seen["gapless"] = text.String(), gapless
	return seen, nil
}

func outcome(seen facts, err error) facts {
	var refused *fault.Fault
	var application thrift.TApplicationException
	var transport thrift.TTransportException
	switch {
	case err == nil && seen == nil:
		return facts{"outcome": "oneway"}
	case err == nil:
		seen["outcome"] = "reply"
		return seen
	case errors.As(err, &refused):
		return facts{"outcome": "fault", "code": int(refused.Code), "message": refused.Message, "param": refused.Param, "request_id": refused.RequestID}
	case errors.As(err, &application):
		return facts{"outcome": "application", "type": application.TypeId(), "message": application.Error()}
	case errors.As(err, &transport) && transport.TypeId() == thrift.TIMED_OUT:
		return facts{"outcome": "timeout", "message": err.Error()}
	}
	return facts{"outcome": "transport", "message": err.Error()}
}

func (c *connection) goesOn(ctx context.Context) interface{} {
	reply, err := health.NewHealthClient(c.client("Health")).Check(ctx, &health.CheckRequest{})
	if err != nil {
		return err.Error()
	}
	return reply.Status == health.ServingStatus_SERVING
}

func contains(all []string, one string) bool {
	for _, each := range all {
		if each == one {
			return true
		}
	}
	return false
}

func run(path, address string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var given plan
	if err := json.Unmarshal(text, &given); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	ctx := context.Background()
	for _, client := range given.Clients {
		if client.Name != "go" {
			continue
		}
		for _, protocol := range client.Protocols {
			for _, transport := range client.Transports {
				for i := range given.Cases {
					t := &given.Cases[i]
					if t.Transports == nil {
						t.Transports = []string{"framed", "multiplexed"}
					}
					if !contains(t.Transports, transport) {
						continue
					}
					if t.PatienceMs == 0 {
						t.PatienceMs = 30_000
					}
					connection, err := dial(address, protocol, transport, t.PatienceMs)
					if err != nil {
						return err
					}
					seen := outcome(connection.do(ctx, t))
					if !t.Last {
						seen["goes_on"] = connection.goesOn(ctx)
					}
					connection.transport.Close()
					seen["protocol"], seen["transport"], seen["case"] = protocol, transport, t.Name
					if err := out.Encode(seen); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

package dev.outboard.conformance;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import dev.outboard.base.Base;
import dev.outboard.chat.Chat;
import dev.outboard.chat.ChatReply;
import dev.outboard.chat.ChatRequest;
import dev.outboard.chat.Message;
import dev.outboard.chat.NextReply;
import dev.outboard.chat.NextRequest;
import dev.outboard.chat.Piece;
import dev.outboard.chat.Sampling;
import dev.outboard.chat.StartRequest;
import dev.outboard.chat.StopRequest;
import dev.outboard.fault.Fault;
import dev.outboard.health.CheckReply;
import dev.outboard.health.CheckRequest;
import dev.outboard.health.Health;
import dev.outboard.health.ServingStatus;
import dev.outboard.inference.CancelRequest;
import dev.outboard.inference.Classification;
import dev.outboard.inference.ClassifyReply;
import dev.outboard.inference.ClassifyRequest;
import dev.outboard.inference.DataType;
import dev.outboard.inference.EmbedReply;
import dev.outboard.inference.EmbedRequest;
import dev.outboard.inference.InferReply;
import dev.outboard.inference.InferRequest;
import dev.outboard.inference.Inference;
import dev.outboard.inference.ModelInfo;
import dev.outboard.inference.ModelsReply;
import dev.outboard.inference.ModelsRequest;
import dev.outboard.inference.Tensor;
import dev.outboard.stranger.Anything;
import dev.outboard.stranger.Misreader;
import dev.outboard.stranger.Misunderstood;
import dev.outboard.stranger.Stranger;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.thrift.TApplicationException;
import org.apache.thrift.TException;
import org.apache.thrift.protocol.TBinaryProtocol;
import org.apache.thrift.protocol.TCompactProtocol;
import org.apache.thrift.protocol.TMultiplexedProtocol;
import org.apache.thrift.protocol.TProtocol;
import org.apache.thrift.transport.TSocket;
import org.apache.thrift.transport.TTransport;
import org.apache.thrift.transport.TTransportException;
import org.apache.thrift.transport.layered.TFramedTransport;

/** Does what cases.json lists with Apache's Java library and generated code; prints what it saw, one JSON object a line. */
public final class Client {
    private static final SecureRandom RANDOM = new SecureRandom();

    private final JsonObject given;
    private final TTransport transport;
    private final TProtocol protocol;
    private final boolean multiplexed;

    private Client(String address, String protocol, String transport, JsonObject given) throws Exception {
        this.given = given;
        int colon = address.lastIndexOf(':');
        int patience = number("patience_ms", 30_000);
        TSocket socket = new TSocket(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)), patience);
        this.transport = transport.equals("buffered") ? socket : new TFramedTransport(socket);
        this.protocol = protocol.equals("compact") ? new TCompactProtocol(this.transport) : new TBinaryProtocol(this.transport);
        this.multiplexed = transport.equals("multiplexed");
        this.transport.open();
    }

    private TProtocol as(String service) {
        return multiplexed ? new TMultiplexedProtocol(protocol, service) : protocol;
    }

    private int number(String key, int otherwise) {
        return given.has(key) ? given.get(key).getAsInt() : otherwise;
    }

    private String text(String key) {
        return given.has(key) ? given.get(key).getAsString() : null;
    }

    private Base base() {
        return new Base()
            .setRequest_id("conformance-" + text("name"))
            .setCaller("java")
            .setTimeout_ms(number("timeout_ms", 20_000));
    }

    private static byte[] random() {
        byte[] key = new byte[16];
        RANDOM.nextBytes(key);
        return key;
    }

    private InferRequest inferRequest() {
        JsonObject input = given.getAsJsonObject("input");
        Tensor tensor = new Tensor()
            .setName(input.get("name").getAsString())
            .setData_type(DataType.findByValue(input.get("type").getAsInt()))
            .setShape(new ArrayList<>());
        input.getAsJsonArray("shape").forEach(axis -> tensor.addToShape(axis.getAsLong()));
        if (input.has("hex")) {
            tensor.setData(HexFormat.of().parseHex(input.get("hex").getAsString()));
        } else if (input.has("zeros")) {
            tensor.setData(new byte[input.get("zeros").getAsInt()]);
        } else {
            input.getAsJsonArray("strings").forEach(text -> tensor.addToStrings(text.getAsString()));
        }
        return new InferRequest().setBase(base()).setModel(text("model")).setInputs(List.of(tensor));
    }

    private static Map<String, Object> inferred(InferReply reply) {
        Tensor output = reply.getOutputs().get(0);
        Map<String, Object> seen = new TreeMap<>();
        seen.put("outputs", reply.getOutputs().size());
        seen.put("type", output.getData_type().getValue());
        seen.put("shape", output.getShape());
        if (output.isSetStrings()) {
            seen.put("strings", output.getStrings());
        }
        if (output.isSetData()) {
            byte[] data = output.getData();
            seen.put("bytes", data.length);
            if (data.length <= 64) {
                seen.put("hex", HexFormat.of().formatHex(data));
            }
        }
        seen.put("request_id", reply.getRequest_id());
        return seen;
    }

    private ChatRequest chat() {
        return new ChatRequest()
            .setBase(base())
            .setModel(text("model"))
            .setMessages(List.of(new Message("user", text("message"))))
            .setMax_tokens(number("max_tokens", 0))
            .setSampling(new Sampling().setTemperature(0));
    }

    /** What was seen; null when the call was oneway. */
    private Map<String, Object> make() throws Exception {
        switch (text("way")) {
            case "check": {
                String service = given.has("service") ? text("service") : "Health";
                CheckReply reply = new Health.Client(as(service)).check(new CheckRequest().setBase(base()).setModel(text("model")));
                return facts("status", reply.getStatus().getValue(), "live", reply.isLive(), "models", reply.getModelsSize());
            }
            case "models": {
                ModelsReply reply = new Inference.Client(as("Inference"))
                    .models(new ModelsRequest().setBase(base()).setModel(text("model")));
                List<String> names = reply.getModels().stream().map(ModelInfo::getName).sorted().toList();
                return facts("names", names, "labels", reply.getModels().get(0).getLabelsSize(), "request_id", reply.getRequest_id());
            }
            case "classify": {
                ClassifyRequest request = new ClassifyRequest().setBase(base()).setModel(text("model"));
                for (JsonElement path : given.getAsJsonArray("pictures")) {
                    request.addToImages(ByteBuffer.wrap(Files.readAllBytes(Path.of(path.getAsString()))));
                }
                if (given.has("top_k")) {
                    request.setTop_k(number("top_k", 0));
                }
                if (given.has("preview_px")) {
                    request.setPreview_px(number("preview_px", 0));
                }
                ClassifyReply reply = new Inference.Client(as("Inference")).classify(request);
                Classification first = reply.getResults().get(0);
                return facts("label", first.getLabels().get(0).getLabel(), "labels", first.getLabelsSize(), "results",
                    reply.getResultsSize(), "format", first.getFormat(), "size", List.of(first.getWidth(), first.getHeight()),
                    "preview", first.isSetPreview(), "request_id", reply.getRequest_id());
            }
            case "infer":
                return inferred(new Inference.Client(as("Inference")).infer(inferRequest()));
            case "infer-cancelled": {
                Inference.Client client = new Inference.Client(as("Inference"));
                byte[] id = random();
                InferRequest request = inferRequest();
                request.getBase().setCall_id(id);
                client.send_infer(request);
                // A client of its own: the first one expects the answer to the number that it sent last.
                new Inference.Client(as("Inference")).cancel(new CancelRequest().setCall_id(id));
                return inferred(client.recv_infer());
            }
            case "embed": {
                List<String> texts = new ArrayList<>();
                given.getAsJsonArray("texts").forEach(text -> texts.add(text.getAsString()));
                while (texts.size() < number("repeat", 1)) {
                    texts.add(texts.get(0));
                }
                EmbedReply reply = new Inference.Client(as("Inference"))
                    .embed(new EmbedRequest().setBase(base()).setModel(text("model")).setTexts(texts));
                return facts("dimensions", reply.getDimensions(), "bytes", reply.getVectors().length, "texts",
                    reply.getToken_countsSize(), "tokens", reply.getToken_counts(), "request_id", reply.getRequest_id());
            }
            case "cancel":
                new Inference.Client(as("Inference")).cancel(new CancelRequest().setCall_id(new byte[16]));
                return null;
            case "complete": {
                ChatReply reply = new Chat.Client(as("Chat")).complete(chat());
                return facts("choices", reply.getChoicesSize(), "text", reply.getChoices().get(0).getText(), "finish",
                    reply.getChoices().get(0).getFinish().getValue(), "completion_tokens",
                    reply.getUsage().getCompletion_tokens(), "request_id", reply.getRequest_id());
            }
            case "stream":
                return stream();
            case "stop": {
                Chat.Client client = new Chat.Client(as("Chat"));
                String id = client.start(new StartRequest().setBase(base()).setStream_key(random()).setChat(chat())).getStream_id();
                client.stop(new StopRequest().setStream_id(id));
                NextReply reply = client.next_pieces(new NextRequest().setStream_id(id).setFrom_piece(0).setWait_ms(10_000));
                return facts("ended", reply.isEnded());
            }
            case "next":
                new Chat.Client(as("Chat"))
                    .next_pieces(new NextRequest().setBase(base()).setStream_id(text("stream")).setFrom_piece(0));
                return facts();
            case "frobnicate":
                new Stranger.Client(as("Stranger")).frobnicate(new Anything());
                return facts();
            case "misread":
                new Misreader.Client(as("Health")).check(new Misunderstood().setBase(base()).setModel(7));
                return facts();
            default:
                throw new IllegalArgumentException("no way is called " + text("way"));
        }
    }

    private Map<String, Object> stream() throws TException {
        Chat.Client client = new Chat.Client(as("Chat"));
        StartRequest request = new StartRequest().setBase(base()).setStream_key(random()).setChat(chat()).setBound(true);
        String id = client.start(request).getStream_id();
        Map<String, Object> seen = facts("again", client.start(request).getStream_id().equals(id) ? "same" : "another");
        StringBuilder text = new StringBuilder();
        boolean gapless = true;
        long next = 0;
        for (boolean ended = false; !ended; ) {
            NextReply reply = client.next_pieces(new NextRequest().setStream_id(id).setFrom_piece(next).setWait_ms(10_000));
            for (Piece piece : reply.getPieces()) {
                gapless &= piece.getNumber() == next;
                next++;
                text.append(piece.getText());
                if (piece.isSetFinish()) {
                    seen.put("finish", piece.getFinish().getValue());
                }
                if (piece.isSetUsage()) {
                    seen.put("completion_tokens", piece.getUsage().getCompletion_tokens());
                }
            }
            ended = reply.isEnded();
        }
        seen.put("text", text.toString());
        seen.put("gapless", gapless);
        return seen;
    }

    private static Map<String, Object> facts(Object... pairs) {
        Map<String, Object> facts = new TreeMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            facts.put((String) pairs[i], pairs[i + 1]);
        }
        return facts;
    }

    private Map<String, Object> outcome() throws Exception {
        try {
            Map<String, Object> seen = make();
            if (seen == null) {
                return facts("outcome", "oneway");
            }
            seen.put("outcome", "reply");
            return seen;
        } catch (Fault fault) {
            return facts("outcome", "fault", "code", fault.getCode().getValue(), "message", fault.getMessage(), "param",
                fault.getParam(), "request_id", fault.getRequest_id());
        } catch (TApplicationException error) {
            return facts("outcome", "application", "type", error.getType(), "message", error.getMessage());
        } catch (TTransportException error) {
            boolean timeout = error.getType() == TTransportException.TIMED_OUT;
            return facts("outcome", timeout ? "timeout" : "transport", "message", error.getMessage());
        }
    }

    private Object goesOn() {
        try {
            return new Health.Client(as("Health")).check(new CheckRequest()).getStatus() == ServingStatus.SERVING;
        } catch (TException error) {
            return error.toString();
        }
    }

    private static boolean isFor(JsonObject given, String transport) {
        if (!given.has("transports")) {
            return transport.equals("framed") || transport.equals("multiplexed");
        }
        JsonArray transports = given.getAsJsonArray("transports");
        return transports.contains(JsonParser.parseString('"' + transport + '"'));
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        JsonObject plan = JsonParser.parseString(Files.readString(Path.of(arguments[0]))).getAsJsonObject();
        for (JsonElement element : plan.getAsJsonArray("clients")) {
            JsonObject me = element.getAsJsonObject();
            if (!me.get("name").getAsString().equals("java")) {
                continue;
            }
            for (JsonElement protocol : me.getAsJsonArray("protocols")) {
                for (JsonElement transport : me.getAsJsonArray("transports")) {
                    for (JsonElement each : plan.getAsJsonArray("cases")) {
                        JsonObject given = each.getAsJsonObject();
                        if (!isFor(given, transport.getAsString())) {
                            continue;
                        }
                        Client client = new Client(arguments[1], protocol.getAsString(), transport.getAsString(), given);
                        Map<String, Object> seen = client.outcome();
                        if (!given.has("last")) {
                            seen.put("goes_on", client.goesOn());
                        }
                        client.transport.close();
                        seen.put("protocol", protocol.getAsString());
                        seen.put("transport", transport.getAsString());
                        seen.put("case", client.text("name"));
                        out.println(new Gson().toJson(seen));
                    }
                }
            }
        }
    }
}

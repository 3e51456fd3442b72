import dev.outboard.base.Base;
import dev.outboard.chat.Chat.Client;
import dev.outboard.chat.ChatRequest;
import dev.outboard.chat.Message;
import dev.outboard.chat.NextReply;
import dev.outboard.chat.NextRequest;
import dev.outboard.chat.Piece;
import dev.outboard.chat.StartRequest;
import dev.outboard.fault.Fault;
import java.security.SecureRandom;
import java.util.List;
import java.util.UUID;
import org.apache.thrift.TException;
import org.apache.thrift.protocol.TBinaryProtocol;
import org.apache.thrift.transport.TSocket;
import org.apache.thrift.transport.TTransport;
import org.apache.thrift.transport.layered.TFramedTransport;

/**
 * Streams a chat with generated code and Apache's Java library.
 *
 * <pre>
 * mkdir gen classes && thrift -r --gen java -out gen idl/chat.thrift
 * javac -cp 'lib/*' -d classes docs/clients/Chat.java $(find gen -name '*.java')
 * java -cp 'classes:lib/*' Chat 127.0.0.1:9090 smollm2-135m-instruct "What is a rainbow?"
 * </pre>
 *
 * In lib are libthrift 0.17.0 (the compiler's version: the code does not compile with a newer one), javax.annotation-api and slf4j-api.
 */
public final class Chat {
    private static final int WAIT_MS = 10_000;

    /** Prints one answer as it comes. */
    private static void stream(Client chat, String model, String question) throws TException {
        byte[] key = new byte[16];
        new SecureRandom().nextBytes(key);
        // The id stands in the server's log; a service hands on the one that it was called with.
        Base base = new Base().setRequest_id("java-" + UUID.randomUUID()).setCaller("docs").setTimeout_ms(120_000);
        ChatRequest request = new ChatRequest().setModel(model).setMessages(List.of(new Message("user", question)));
        // Bound: when this program ends in whatever way, so does the answer.
        StartRequest start = new StartRequest().setBase(base).setStream_key(key).setChat(request).setBound(true);
        String stream = chat.start(start).getStream_id();
        long next = 0;
        for (boolean ended = false; !ended; ) {
            NextReply reply =
                chat.next_pieces(new NextRequest().setStream_id(stream).setFrom_piece(next).setWait_ms(WAIT_MS));
            for (Piece piece : reply.getPieces()) {
                next = piece.getNumber() + 1;
                if (piece.isSetError()) {
                    Fault broken = new Fault().setCode(piece.getError()).setMessage(piece.getError_message());
                    throw broken.setRequest_id(base.getRequest_id());
                }
                System.out.print(piece.getText());
                System.out.flush();
                if (piece.isSetUsage()) {
                    System.err.printf("%n[%s, %d + %d tokens]%n", piece.getFinish(), piece.getUsage().getPrompt_tokens(),
                        piece.getUsage().getCompletion_tokens());
                }
            }
            ended = reply.isEnded();
        }
    }

    public static void main(String[] arguments) {
        if (arguments.length != 3) {
            System.err.println("usage: Chat HOST:PORT MODEL QUESTION");
            System.exit(2);
        }
        String[] address = arguments[0].split(":");
        // Longer than a call waits for something new. After a timeout here the connection must be closed.
        try (TSocket socket = new TSocket(address[0], Integer.parseInt(address[1]), WAIT_MS + 5_000);
            TTransport transport = new TFramedTransport(socket)) {
            transport.open();
            stream(new Client(new TBinaryProtocol(transport)), arguments[1], arguments[2]);
            System.out.println();
        } catch (Fault fault) {
            System.err.printf("%s: %s (request %s)%n", fault.getCode(), fault.getMessage(), fault.getRequest_id());
            System.exit(1);
        } catch (TException error) {
            // No connection, no answer in time, or something that is no server of Outboard's.
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }
}

package interop;

import java.io.IOException;
import org.apache.drill.exec.memory.BufferAllocator;
import org.apache.drill.exec.proto.ExecProtos.FragmentHandle;
import org.apache.drill.exec.record.RawFragmentBatch;

/** Fails whatever it is given. */
final class Refusing extends Receiver {
  Refusing(FragmentHandle handle, BufferAllocator allocator) {
    super(handle, allocator);
  }

  @Override
  void take(RawFragmentBatch batch) throws IOException {
    batch.release();
    throw new IOException("as asked");
  }
}

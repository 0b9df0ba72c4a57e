package interop;

import java.util.List;
import org.apache.drill.common.types.TypeProtos.MinorType;
import org.apache.drill.common.types.Types;
import org.apache.drill.exec.memory.BufferAllocator;
import org.apache.drill.exec.record.FragmentWritableBatch;
import org.apache.drill.exec.record.MaterializedField;
import org.apache.drill.exec.record.WritableBatch;
import org.apache.drill.exec.rpc.data.DataTunnel;
import org.apache.drill.exec.vector.BigIntVector;

/** Sends many batches of one row over one tunnel, as fast as its window lets it. */
final class Flood implements Runnable {
  private final int major;
  private final int count;
  private final BufferAllocator allocator;
  private final DataTunnel tunnel;

  Flood(int major, int count, BufferAllocator allocator, DataTunnel tunnel) {
    this.major = major;
    this.count = count;
    this.allocator = allocator;
    this.tunnel = tunnel;
  }

  @Override
  public void run() {
    Answers answers = new Answers();
    try {
      for (int batch = 0; batch < count; batch++) {
        answers.sent();
        tunnel.sendRecordBatch(answers, batch(batch));
        DataPlaneHarness.say("sent " + major + " " + batch);
      }
      DataPlaneHarness.say("flooded " + major + " " + answers.all());
    } catch (Throwable problem) {
      problem.printStackTrace();
      DataPlaneHarness.say("flood " + major + " failed: " + problem);
    }
  }

  private FragmentWritableBatch batch(int number) {
    MaterializedField field = MaterializedField.create("n", Types.required(MinorType.BIGINT));
    BigIntVector vector = new BigIntVector(field, allocator);
    vector.allocateNew(1);
    vector.getMutator().setSafe(0, number);
    vector.getMutator().setValueCount(1);
    WritableBatch writable = WritableBatch.getBatchNoHV(1, List.of(vector), false);
    boolean last = number == count - 1;
    return new FragmentWritableBatch(last, DataPlaneHarness.QUERY, major, 0, major, 0, writable);
  }
}

package interop;

import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLFeatureNotSupportedException;
import java.sql.Statement;
import java.sql.Types;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TimeZone;

/**
 * Reads a whole result by typed getters, as a program does that wants all of its values, and takes the
 * time. All cells go into one number, the same for every order of the rows; {@code checksum.rs} of the
 * benchmarks computes it from Arrow.
 */
final class Scan {
  private static final long MILLIS_PER_DAY = 86_400_000;
  /** Stands for null: no value of an INT column has this bit. */
  private static final long NULL = 1L << 40;

  private final ResultSet results;
  private final int[] types;
  private final TimeZone zone = TimeZone.getDefault();

  private Scan(ResultSet results) throws SQLException {
    this.results = results;
    ResultSetMetaData meta = results.getMetaData();
    types = new int[meta.getColumnCount()];
    for (int i = 0; i < types.length; i++) {
      types[i] = meta.getColumnType(i + 1);
    }
  }

  static Map<String, Object> run(Statement statement, String sql) throws SQLException {
    long start = System.nanoTime();
    long firstRow = 0;
    long rows = 0;
    long sum = 0;
    try (ResultSet results = statement.executeQuery(sql)) {
      Scan scan = new Scan(results);
      while (results.next()) {
        if (rows++ == 0) {
          firstRow = System.nanoTime() - start;
        }
        sum += scan.row();
      }
    }
    Map<String, Object> read = new LinkedHashMap<>();
    read.put("rows", rows);
    read.put("sum", sum);
    read.put("first_row_nanos", firstRow);
    read.put("nanos", System.nanoTime() - start);
    return read;
  }

  private long row() throws SQLException {
    long hash = 0;
    for (int i = 0; i < types.length; i++) {
      hash = (Long.rotateLeft(hash, 5) ^ cell(i + 1, types[i])) * 0x9e3779b97f4a7c15L;
    }
    // Folded, because a sum of products alone would not see two rows swap their last cells.
    return hash ^ (hash >>> 32);
  }

  private long cell(int column, int type) throws SQLException {
    return switch (type) {
      case Types.BIGINT -> results.getLong(column);
      case Types.DOUBLE -> Double.doubleToRawLongBits(results.getDouble(column));
      case Types.VARCHAR -> results.getString(column).hashCode();
      case Types.DATE -> day(results.getDate(column).getTime());
      case Types.INTEGER -> nullable(results.getInt(column));
      default -> throw new SQLFeatureNotSupportedException("no column of type " + type);
    };
  }

  private long nullable(int value) throws SQLException {
    return results.wasNull() ? NULL : value;
  }

  /** Days since 1970-01-01; a {@code java.sql.Date} is midnight of the default zone. */
  private long day(long millis) {
    return Math.floorDiv(millis + zone.getOffset(millis), MILLIS_PER_DAY);
  }
}

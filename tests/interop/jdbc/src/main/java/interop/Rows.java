package interop;

import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The metadata and the rows of a result set as JSON values. */
final class Rows {
  private Rows() {}

  static List<Object> columns(ResultSetMetaData meta) throws SQLException {
    List<Object> columns = new ArrayList<>();
    for (int i = 1; i <= meta.getColumnCount(); i++) {
      columns.add(column(meta, i));
    }
    return columns;
  }

  private static Map<String, Object> column(ResultSetMetaData meta, int i) throws SQLException {
    Map<String, Object> column = new LinkedHashMap<>();
    column.put("name", meta.getColumnName(i));
    column.put("label", meta.getColumnLabel(i));
    column.put("type", meta.getColumnType(i));
    column.put("type_name", meta.getColumnTypeName(i));
    column.put("nullable", meta.isNullable(i));
    column.put("precision", meta.getPrecision(i));
    column.put("scale", meta.getScale(i));
    column.put("display_size", meta.getColumnDisplaySize(i));
    column.put("signed", meta.isSigned(i));
    column.put("class", meta.getColumnClassName(i));
    return column;
  }

  /**
   * Reads at most {@code limit} rows: the first {@code keep} as values, all of them as a count of
   * nulls and a sum per column (numbers added up, anything else by the length of its text).
   */
  static Map<String, Object> read(ResultSet results, long limit, long keep) throws SQLException {
    int width = results.getMetaData().getColumnCount();
    List<Object> kept = new ArrayList<>();
    long[] nulls = new long[width];
    double[] sums = new double[width];
    long count = 0;
    boolean ended = false;
    while (count < limit) {
      if (!results.next()) {
        ended = true;
        break;
      }
      List<Object> row = count < keep ? new ArrayList<>() : null;
      for (int i = 0; i < width; i++) {
        Object value = results.getObject(i + 1);
        nulls[i] += value == null ? 1 : 0;
        sums[i] += weight(value);
        if (row != null) {
          row.add(value(value));
        }
      }
      if (row != null) {
        kept.add(row);
      }
      count++;
    }
    Map<String, Object> read = new LinkedHashMap<>();
    read.put("count", count);
    read.put("ended", ended);
    read.put("rows", kept);
    read.put("nulls", boxed(nulls));
    read.put("sums", boxed(sums));
    return read;
  }

  private static double weight(Object value) {
    if (value instanceof Number number) {
      return number.doubleValue();
    }
    return value == null ? 0 : text(value).length();
  }

  /** A value as its Java class and its text, or null. */
  private static Object value(Object value) {
    return value == null ? null : List.of(value.getClass().getName(), text(value));
  }

  private static String text(Object value) {
    return value instanceof byte[] bytes ? HexFormat.of().formatHex(bytes) : value.toString();
  }

  private static List<Object> boxed(long[] values) {
    List<Object> list = new ArrayList<>();
    for (long value : values) {
      list.add(value);
    }
    return list;
  }

  private static List<Object> boxed(double[] values) {
    List<Object> list = new ArrayList<>();
    for (double value : values) {
      list.add(value);
    }
    return list;
  }
}

package peers.common;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;

/** The command line: {@code name=value}, each name once. */
public final class Arguments {
  private final Map<String, String> values = new LinkedHashMap<>();

  public Arguments(String[] args) {
    for (String arg : args) {
      int at = arg.indexOf('=');
      if (at < 1) throw new IllegalArgumentException("not of the form name=value: " + arg);
      if (values.put(arg.substring(0, at), arg.substring(at + 1)) != null) {
        throw new IllegalArgumentException("given twice: " + arg);
      }
    }
  }

  public String get(String name) {
    String value = values.remove(name);
    if (value == null) throw new IllegalArgumentException(name + "= is missing");
    return value;
  }

  public String get(String name, String otherwise) {
    String value = values.remove(name);
    return value == null ? otherwise : value;
  }

  public int getInt(String name) {
    return Integer.parseInt(get(name));
  }

  /** What nobody asked for: settings of the system itself, all with a dot in their names. */
  public Properties settings() {
    Properties settings = new Properties();
    for (Map.Entry<String, String> value : values.entrySet()) {
      if (!value.getKey().contains(".")) {
        throw new IllegalArgumentException("unknown: " + new TreeSet<>(values.keySet()));
      }
      settings.setProperty(value.getKey(), value.getValue());
    }
    values.clear();
    return settings;
  }
}

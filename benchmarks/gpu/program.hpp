#ifndef GPU_PROGRAM_HPP_
#define GPU_PROGRAM_HPP_

#include <cstdio>
#include <string>

#include "caffe/caffe.hpp"

// What the programs here have in common.

namespace gpu_bench {

// Of Caffe's log, its errors.
inline int run_quietly(int argc, char** argv, int (*program)(int, char**)) {
  FLAGS_minloglevel = 2;
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(argv[0]);
  return program(argc, argv);
}

// A JSON file with an array of rows between a head and a tail, which is whole
// after every row: a program that ends early leaves what it has found.
class JsonRows {
 public:
  // Without a path nothing is written.
  explicit JsonRows(const char* path)
      : path_(path), file_(path ? fopen(path, "w") : NULL), rows_(0) {}
  ~JsonRows() {
    if (file_) {
      fclose(file_);
    }
  }
  // False, with a message, where the file cannot be written.
  bool Start(const std::string& head, const std::string& tail) {
    if (path_ && !file_) {
      fprintf(stderr, "cannot write %s\n", path_);
      return false;
    }
    tail_ = tail;
    Write(head + tail);
    return true;
  }
  void Add(const std::string& row) {
    if (file_) {
      fseek(file_, -static_cast<long>(tail_.size()),  // NOLINT(runtime/int)
            SEEK_CUR);
      Write((rows_++ ? ",\n" : "") + row + tail_);
    }
  }

 private:
  JsonRows(const JsonRows&);
  void operator=(const JsonRows&);
  void Write(const std::string& text) {
    if (file_) {
      fputs(text.c_str(), file_);
      fflush(file_);
    }
  }

  const char* path_;
  FILE* file_;
  std::string tail_;
  int rows_;
};

// As printf.
template <typename... Numbers>
std::string formatted(const char* format, Numbers... numbers) {
  char text[1024];
  snprintf(text, sizeof(text), format, numbers...);
  return text;
}

}  // namespace gpu_bench

#endif  // GPU_PROGRAM_HPP_

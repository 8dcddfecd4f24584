// The pass compiled for several instruction sets, and the choice between them at run time.
#ifndef SKLSEQ_PASS_DISPATCH_H
#define SKLSEQ_PASS_DISPATCH_H

#include "_pass_types.h"

namespace sklseq {

namespace baseline {
#include "_pass_matrix.h"
#include "_pass_engines.h"
#include "_pass_driver.h"
}  // namespace baseline

inline void run_pass(const Pass& p) { baseline::run(p); }

}  // namespace sklseq

#endif

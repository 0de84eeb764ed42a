# g++ and make: threads, exceptions, a shared library, two compilers at once.
set -euo pipefail
mkdir -p /tmp/src && cd /tmp/src
printf '#!/bin/sh\n' > try && chmod +x try && ./try  # or it is for nothing
cat > part.cc <<'C'
#include <stdexcept>
#include <string>
int thrower(int n) { if (n % 2) throw std::runtime_error("odd " + std::to_string(n)); return n; }
C
cat > main.cc <<'C'
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <stdexcept>
#include <thread>
#include <vector>
int thrower(int n);
int main() {
	std::atomic<int> caught{0};
	std::vector<std::thread> ts;
	for (int i = 0; i < 16; i++)
		ts.emplace_back([&, i] { try { thrower(i); } catch (const std::exception &) { caught++; } });
	for (auto &t : ts) t.join();
	auto f = std::async(std::launch::async, [] { return thrower(1); });
	try { f.get(); return 1; } catch (const std::runtime_error &e) { if (std::string(e.what()) != "odd 1") return 2; }
	std::ofstream("made") << "x";
	if (std::filesystem::file_size("made") != 1) return 3;
	std::cout << caught << "\n";
}
C
printf 'smoke: main.o libpart.so\n\tg++ -pthread -o $@ main.o -L. -lpart -Wl,-rpath,"$$PWD"\nmain.o: main.cc\n\tg++ -std=c++17 -O2 -pthread -c $<\nlibpart.so: part.cc\n\tg++ -std=c++17 -O2 -fPIC -shared -pthread -o $@ $<\n' > Makefile
make -s -j2 smoke
[ "$(./smoke)" = 8 ]
g++ -std=c++17 -O1 -static -pthread -o static main.cc part.cc && [ "$(./static)" = 8 ]
echo smoke-ok
